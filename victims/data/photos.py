"""`photos`: crops of ten color photographs that scikit-image and scikit-learn include.

Nothing is downloaded. Every photograph is resized to a short side of 384 pixels and cut by columns into four strips
that share no pixel: the first and third are `train`, the second is `test`, the fourth is `tune`. Priors are trained on
`train`, settings are chosen on `tune`, results are scored on `test`.
"""

from collections.abc import Collection
from functools import cache

import numpy as np
import skimage.data
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from victims.data.base import ImageData
from victims.errors import InputError

SHORT_SIDE = 384
WINDOW = 64  # side of a crop in the photograph's pixels; it is area-averaged down to `size`
STRIPS = {"train": (0, 2), "test": (1,), "tune": (3,)}  # quarters of the width, counted from the left
MARGIN = 4  # columns left out at every border: more than the resampling kernel reaches
PHOTOGRAPHS = {
    "astronaut": skimage.data.astronaut,
    "chelsea": skimage.data.chelsea,
    "coffee": skimage.data.coffee,
    "rocket": skimage.data.rocket,
    "motorcycle": lambda: skimage.data.stereo_motorcycle()[0],
    "hubble": skimage.data.hubble_deep_field,
    "retina": skimage.data.retina,
    "ihc": skimage.data.immunohistochemistry,
    "china": lambda: load_sample_image("china.jpg"),
    "flower": lambda: load_sample_image("flower.jpg"),
}


@cache
def photograph(name: str) -> Image.Image:
    """The photograph as RGB with a short side of 384 pixels."""
    image = Image.fromarray(np.ascontiguousarray(PHOTOGRAPHS[name]()[..., :3]))
    scale = SHORT_SIDE / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def regions(name: str, split: str) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) in pixels of the parts of photograph `name` that belong to `split`."""
    width, height = photograph(name).size
    edge = [round(quarter * width / 4) for quarter in range(5)]
    return [(edge[quarter] + MARGIN, 0, edge[quarter + 1] - MARGIN, height) for quarter in STRIPS[split]]


def starts(low: int, high: int) -> list[int]:
    """Left edges of as many windows as fit side by side into [low, high), spread evenly."""
    count = (high - low) // WINDOW
    slack = (high - low) - count * WINDOW
    return [low + i * WINDOW + slack * (i + 1) // (count + 1) for i in range(count)]


def crop(name: str, left: int, top: int, size: int, window: int = WINDOW) -> Tensor:
    """One square crop, (3, size, size) in [0, 1]."""
    box = (left, top, left + window, top + window)
    pixels = photograph(name).resize((size, size), Image.Resampling.BOX, box=box)
    return torch.from_numpy(np.asarray(pixels).copy()).permute(2, 0, 1).float() / 255


class Photos(ImageData):
    """Crops of ten color photographs, without download; the class is the photograph.

    The crops lie on a fixed grid and do not overlap.
    """

    name = "photos"

    classes = tuple(PHOTOGRAPHS)
    mean = (0.469, 0.378, 0.331)  # of the train crops at 32 px
    std = (0.309, 0.245, 0.250)

    def __init__(self, *, split: str = "test", size: int = 32) -> None:
        """
        Args:
            split: train, tune or test.
            size: side of the images in pixels; a crop covers 64 pixels of its photograph.

        Raises:
            InputError: the split is unknown, or the size is not between 8 and 64.
        """
        if split not in STRIPS:
            raise InputError(f"photos has no split '{split}'; it has {', '.join(STRIPS)}.")
        if not 8 <= size <= WINDOW:
            raise InputError(f"photos cannot be {size} pixels wide; choose a size from 8 to {WINDOW}.")
        self.size, self.split = size, split
        self.corners = [
            (name, x, y)
            for name in self.classes
            for left, top, right, bottom in regions(name, split)
            for y in starts(top, bottom)
            for x in starts(left, right)
        ]
        self.ids = [f"{name}-{split}-x{x}-y{y}" for name, x, y in self.corners]
        self.labels = torch.tensor([self.classes.index(name) for name, _, _ in self.corners])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        name, x, y = self.corners[index]
        return crop(name, x, y, self.size), int(self.labels[index])

    def augmented(self, count: int, generator: torch.Generator, without: Collection[int] = ()) -> tuple[Tensor, Tensor]:
        """Crops at any place of the strips, from windows of 48 to 96 pixels: the grid alone has too few images.

        Args:
            without: crops of the grid that are held out; no other one shares a pixel with them.
        """
        images = []
        labels = torch.randint(len(self.classes), (count,), generator=generator)
        for label in labels.tolist():
            name = self.classes[label]
            held = [(x, y) for other, x, y in (self.corners[index] for index in without) if other == name]
            while True:
                strip, scale, across, down, mirror = torch.rand(5, generator=generator).tolist()
                parts = regions(name, self.split)
                left, top, right, bottom = parts[int(strip * len(parts))]
                window = min(round(48 * 2**scale), right - left)
                x = left + round(across * (right - left - window))
                y = top + round(down * (bottom - top - window))
                if not any(-WINDOW < i - x < window and -WINDOW < j - y < window for i, j in held):
                    break
            image = crop(name, x, y, self.size, window)
            images.append(image.flip(-1) if mirror < 0.5 else image)
        return torch.stack(images), labels
