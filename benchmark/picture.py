"""The picture at the end of a run."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmark.judge import picture_path
from victims.data.base import ImageData

COLUMNS, MOST = 8, 32


def draw(folder: Path, rows: list[dict[str, Any]], data: ImageData, title: str) -> Path:
    """Truth above reconstruction, scores under each, for up to 32 images; returns the file's path."""
    matplotlib.use("Agg")
    shown = rows[:MOST]
    columns = min(COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(1.35 * columns, 3.1 * lines + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=9)
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
        scores = f"{row['psnr']:.1f} dB  SSIM {row['ssim']:.2f}\nLPIPS {lpips}"
        note = "\ndiverged" if row["status"] == "diverged" else ""
        axes[line + 1, column].set_xlabel(scores + note, fontsize=6, labelpad=2)
    path = folder / "picture.png"
    figure.savefig(path, dpi=160)
    return path
