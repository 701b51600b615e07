"""The pictures at the end of a run."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageChops
from torch import Tensor
from torchvision.utils import save_image

from benchmark.scoring.layers import draw_layers, left_out, read_errors
from leaderboard.board import Entry, entries
from leaderboard.figures import literal, write_figure
from leaderboard.run_folder import RunFolder
from leaderboard.settings import label
from leaderboard.table import interval
from victims.data.base import ImageData

COLUMNS, MOST = 8, 32
WIDE = 26  # characters below an image


def png(image: Tensor) -> bytes:
    """The bytes of a picture file: (C, H, W) in [0, 1], rounded to 8 bits.

    Of three or more channels it shows the first three as colors, and of one or two the first in gray: no channel of
    the data is transparency. Scores are of all channels.
    """
    file = io.BytesIO()
    save_image(image[: 3 if len(image) >= 3 else 1], file, "png")
    return file.getvalue()


def difference(truth: Path, reconstruction: Path) -> Image.Image:
    """Twice the absolute difference of two picture files, channel by channel, cut at white."""
    ours, theirs = (Image.open(path).convert("RGB") for path in (truth, reconstruction))
    return ImageChops.difference(ours, theirs).point(lambda value: min(2 * value, 255))


def write_truths(folder: RunFolder, rows: Iterable[Mapping[str, Any]], data: ImageData) -> None:
    """The private images of rows, for the board, which sees nothing but the run's folder.

    Once all tasks are attacked, not before: an attack could look at what lies on the disk.
    """
    places = {image_id: index for index, image_id in enumerate(data.ids)}
    for image_id in dict.fromkeys(row["image"] for row in rows):
        if image_id in places and not folder.truth(image_id).is_file():
            folder.write_truth(image_id, png(data[places[image_id]][0]))


def draw(folder: RunFolder, rows: list[dict[str, Any]], classes: Sequence[str]) -> dict[str, Path]:
    """All pictures of a run, by name: images, cost curves, and errors by layer where there are any."""
    matplotlib.use("Agg")
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    drawn = {"picture": draw_images(folder, rows, classes)}
    if curves := read_curves(folder, tasks):
        drawn["curves"] = draw_curves(folder.drawing("curves"), curves, folder.path.name)
    if errors := read_errors(folder, tasks):
        drawn["layers"] = draw_layers(folder.drawing("layers"), errors, folder.path.name)
    return drawn


def read_curves(folder: RunFolder, tasks: Sequence[str]) -> list[list[float]]:
    """The costs of every task that has a whole curve; a warning names the others."""
    curves = {}
    for task in tasks:
        try:
            if curve := folder.read_curve(task):
                curves[task] = curve.costs
        except (OSError, ValueError):
            left_out(folder.curve_file(task))
    longest = max(map(len, curves.values()), default=0)
    for task, costs in curves.items():
        if len(costs) < longest:  # every task has the same steps
            left_out(folder.curve_file(task))
    return [costs for costs in curves.values() if len(costs) == longest]


def draw_curves(path: Path, curves: Sequence[Sequence[float]], title: str) -> Path:
    """The attacker's cost by step: one thin line per task, and a thick one for their median."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    steps = np.arange(len(curves[0]))
    marker = None if len(steps) > 1 else "o"  # a closed form has one step
    for curve in curves:
        axis.plot(steps, curve, color="C0", alpha=0.3, linewidth=0.7, marker=marker)
    axis.plot(steps, np.median(curves, 0), color="C0", marker=marker)
    axis.set_yscale("log")
    axis.set_xlabel("step", fontsize=8)
    axis.set_ylabel(f"cost (n = {len(curves)} tasks)", fontsize=8)
    axis.set_title(literal(title), fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
    write_figure(path, figure)
    return path


def draw_images(folder: RunFolder, rows: list[dict[str, Any]], classes: Sequence[str]) -> Path:
    """Truth above reconstruction, scores below each, for up to 32 images, under what they are of; the file's path."""
    shown = rows[:MOST]
    columns = min(COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    wide = max(columns, 2)  # for the words above
    figure = Figure(figsize=(1.35 * wide, 3.1 * lines + 0.4), layout="constrained")
    words = [*map(title, entries(rows)), "above: private image; below: its reconstruction"]
    figure.suptitle(literal("\n".join(fill(text, 17 * wide) for text in words)), fontsize=9)
    axes = figure.subplots(2 * lines, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for k, row in enumerate(shown):
        line, column = 2 * (k // columns), k % columns
        show(axes[line, column], folder.truth(row["image"]))
        axes[line, column].set_title(literal(classes[row["label"]]), fontsize=6, pad=2)
        show(axes[line + 1, column], folder.reconstruction(row["task"], row["image"]))
        axes[line + 1, column].set_xlabel(caption(row), fontsize=6, labelpad=2)
    path = folder.drawing("picture")
    write_figure(path, figure)
    return path


def show(axis: Any, path: Path) -> None:
    """Show a picture file; one that was lost or is not whole leaves its place empty, with a warning."""
    try:
        axis.imshow(np.asarray(Image.open(path)))
    except (OSError, ValueError, SyntaxError):  # Pillow raises them for a torn PNG
        left_out(path)


def title(entry: Entry) -> str:
    """Method, setting, and mean PSNR of all images of a run, those too that the picture leaves out."""
    mean = f"mean PSNR {interval(entry.psnr)} dB, n = {entry.n}" if entry.psnr else f"no PSNR, n = {entry.n}"
    return f"{entry.attack}: {label(entry.fields, ())}; {mean}"


def caption(row: Mapping[str, Any]) -> str:
    """Every score of a row, whether the attack diverged, and whether the truth is degenerate, as wide as an image."""
    known = {name: row.get(name) for name in row["higher_is_better"]}
    texts = [f"{name.upper()} {'-' if value is None else format(value, '.3g')}" for name, value in known.items()]
    texts += ["diverged"] if row["status"] == "diverged" else []
    texts += ["degenerate"] if row["degenerate"] else []
    lines = texts[:1]
    for text in texts[1:]:
        if len(lines[-1]) + len(text) + 2 <= WIDE:
            lines[-1] += f"  {text}"
        else:
            lines.append(text)
    return "\n".join(lines)
