"""The error of a layer-by-layer attack in each layer. Evaluation only: it looks at the private image."""

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from attacks.engine.stage import LayerReport
from leaderboard.figures import write_figure
from leaderboard.run_folder import RunFolder
from victims.errors import Notice
from victims.victim import Victim

Errors = list[tuple[str, float]]
"""(layer, |rebuilt input - true input| / |true input|), in the order of the attack: last layer first."""

COLUMNS = ("layer", "unknowns", "gradient_equations", "weight_equations", "rank", "rank_is_bound", "residual")
LEAST = 1e-17  # an error of zero is drawn here


def layer_errors(victim: Victim, image: Tensor, reports: Sequence[LayerReport]) -> Errors:
    """The relative error of every rebuilt layer input.

    Args:
        image: the private image, (C, H, W) in [0, 1].
        reports: of the restart that was chosen.
    """
    layers = {report.layer: victim.model.get_submodule(report.layer) for report in reports}
    with torch.no_grad():
        inputs = victim.entering(layers, victim.parameters, victim.normalize(image.to(victim.mean))[None])
    truth = {name: x[0].cpu().double() for name, x in inputs.items()}
    return [(r.layer, float((r.input - truth[r.layer]).norm() / truth[r.layer].norm())) for r in reports]


def write_layers(folder: RunFolder, task: str, reports: Sequence[LayerReport], errors: Errors) -> None:
    """Keep what every layer's system determined, and the error of its solution."""
    lines = [
        [*(getattr(report, column) for column in COLUMNS), error]
        for report, (_, error) in zip(reports, errors, strict=True)
    ]
    folder.write_layers(task, [*COLUMNS, "error"], lines)


def left_out(path: Path) -> None:
    """Warn that a file of a finished task cannot be drawn; its rows are safe."""
    warnings.warn(f"{path} is missing or damaged; it is left out of the drawing.", Notice, stacklevel=2)


def read_errors(folder: RunFolder, tasks: Sequence[str]) -> list[Errors]:
    """The errors that `write_layers` wrote, of those tasks of which something was rebuilt."""
    found = []
    for task in tasks:
        try:
            found.append([(line["layer"], float(line["error"])) for line in folder.read_layers(task)])
        except (OSError, KeyError, TypeError, ValueError, csv.Error):
            left_out(folder.layers_file(task))
    longest = max(map(len, found), default=0)
    return [errors for errors in found if errors and len(errors) == longest]


def draw_layers(path: Path, errors: Sequence[Errors], title: str = "") -> Path:
    """Mean and standard deviation of log10 of the error over the images, by layer from last to first."""
    layers = [layer for layer, _ in errors[0]]
    log = np.log10(np.maximum([[error for _, error in image] for image in errors], LEAST))
    mean, spread = log.mean(0), log.std(0)
    figure = Figure(figsize=(0.55 * len(layers) + 2, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.fill_between(layers, mean - spread, mean + spread, alpha=0.25, linewidth=0)
    axis.plot(layers, mean, marker="o")
    axis.set_xlabel("input of the layer, in the order of the attack", fontsize=8)
    axis.set_ylabel(f"log10 of the relative error (n = {len(errors)})", fontsize=8)
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
    write_figure(path, figure)
    return path
