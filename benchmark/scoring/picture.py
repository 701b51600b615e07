"""The pictures at the end of a run."""

import csv
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmark.scoring.judge import picture_path
from benchmark.scoring.layers import draw_layers, read_errors
from victims.data.base import ImageData

COLUMNS, MOST = 8, 32


def draw(folder: Path, rows: list[dict[str, Any]], data: ImageData, tasks: Sequence[str]) -> dict[str, Path]:
    """All pictures of a run, by name: images, cost curves, and errors by layer where there are any."""
    matplotlib.use("Agg")
    drawn = {"picture": draw_images(folder, rows, data)}
    if (folder / "curves").is_dir():
        drawn["curves"] = draw_curves(folder, tasks)
    if (folder / "layers").is_dir() and (errors := read_errors(folder, tasks)):
        drawn["layers"] = draw_layers(folder / "layers.png", errors, folder.name)
    return drawn


def draw_curves(folder: Path, tasks: Sequence[str]) -> Path:
    """The attacker's cost by step: one line per task, the median over tasks thick."""
    costs = []
    for task in tasks:
        with (folder / "curves" / f"{task}.csv").open(newline="") as file:
            costs.append([float(row["cost"]) for row in csv.DictReader(file)])
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    steps = np.arange(len(costs[0]))
    style: dict[str, Any] = {} if len(steps) > 1 else {"marker": "o"}  # a closed form has one step
    for curve in costs:
        axis.plot(steps, curve, color="C0", alpha=0.3, linewidth=0.7, **style)
    axis.plot(steps, np.median(costs, 0), color="C0", **style)
    axis.set_yscale("log")
    axis.set_xlabel("step", fontsize=8)
    axis.set_ylabel(f"cost (n = {len(costs)} tasks)", fontsize=8)
    axis.set_title(folder.name, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
    path = folder / "curves.png"
    figure.savefig(path, dpi=160)
    return path


def draw_images(folder: Path, rows: list[dict[str, Any]], data: ImageData) -> Path:
    """Truth above reconstruction, scores under each, for up to 32 images; returns the file's path."""
    shown = rows[:MOST]
    columns = min(COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(1.35 * columns, 3.1 * lines + 0.4), layout="constrained")
    figure.suptitle(fill(folder.name, 20 * columns), fontsize=9)
    axes = figure.subplots(2 * lines, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for k, row in enumerate(shown):
        line, column = 2 * (k // columns), k % columns
        truth, _ = data[data.ids.index(row["image"])]
        axes[line, column].imshow(np.asarray(truth.permute(1, 2, 0)))
        axes[line, column].set_title(data.classes[row["label"]], fontsize=6, pad=2)
        axes[line + 1, column].imshow(np.asarray(Image.open(picture_path(folder, row["task"], row["image"]))))
        lpips = "-" if row["lpips"] is None else f"{row['lpips']:.3f}"
        scores = [
            f"{row['psnr']:.1f} dB  SSIM {row['ssim']:.2f}",
            f"FSIM {row['fsim']:.2f}  LPIPS {lpips}",
            f"IIP {row['iip']:.0f}" + (", diverged" if row["status"] == "diverged" else ""),
        ]
        axes[line + 1, column].set_xlabel("\n".join(scores), fontsize=6, labelpad=2)
    path = folder / "picture.png"
    figure.savefig(path, dpi=160)
    return path
