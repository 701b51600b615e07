"""Data sets that come as image files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from victims.data.base import ImageData
from victims.errors import InputError

TUNE_EVERY = 8  # of the files that `tune` is taken from, in the order of their names, the last of each eight
SUFFIXES = (".png", ".jpg", ".jpeg", ".JPEG")


class ImageFiles(ImageData):
    """Files with labels. The shorter side is resampled bicubically to the size asked for, then the centre is cut out.

    A subclass sets `name`, and hands its files to `take`.
    """

    name: str

    def __init__(self, *, split: str, size: int) -> None:
        """
        Raises:
            InputError: the split is unknown, or the size below 8.
        """
        if split not in self.splits:
            raise InputError(f"{self.name} has no split '{split}'; it has {', '.join(self.splits)}.")
        if size < 8:
            raise InputError(f"{self.name} cannot be {size} pixels wide; choose a size of 8 or more.")
        self.split, self.size = split, size

    def take(self, files: Sequence[Path], ids: Sequence[str], labels: Sequence[int]) -> None:
        self.files, self.ids, self.labels = list(files), list(ids), torch.tensor(labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        try:
            image = Image.open(self.files[index]).convert("RGB")
        except OSError:
            raise InputError(f"{self.files[index]} is no image that can be read; replace it.") from None
        scale = self.size / min(image.size)
        if scale != 1:
            sides = [max(self.size, round(side * scale)) for side in image.size]
            image = image.resize(sides, Image.Resampling.BICUBIC)
        left, top = ((side - self.size) // 2 for side in image.size)
        image = image.crop((left, top, left + self.size, top + self.size))
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255, int(self.labels[index])


def images_in(folder: Path) -> list[Path]:
    """In the order of their names; none where there is no such folder."""
    return sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)


def held_out(files: Sequence[Path], split: str) -> list[Path]:
    """The `tune` files among these, or for any other split the others."""
    tune = set(files[TUNE_EVERY - 1 :: TUNE_EVERY])
    return [path for path in files if (path in tune) == (split == "tune")]
