"""CIFAR-10 (Krizhevsky, 2009) in folders: `<data_dir>/cifar10/<split>/<class>/<name>.png`, or .jpg."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from victims.data.base import ImageData
from victims.errors import InputError

TUNE_EVERY = 8  # of the training images of a class, in the order of their names, the last of each eight is `tune`


class CIFAR10(ImageData):
    """Natural images of ten classes. `tune` is an eighth of the training folder, and `train` the rest."""

    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    mean = (0.4914, 0.4822, 0.4465)  # of the official training images
    std = (0.2470, 0.2435, 0.2616)

    def __init__(self, *, split: str = "test", size: int = 32, data_dir: Path = Path("data")) -> None:
        """
        Args:
            split: train, tune or test.
            size: side of the images in pixels; other sizes than 32 are resampled bicubically.
            data_dir: the folder that holds `cifar10/`.

        Raises:
            InputError: the split is unknown, the size below 8, or a class has no images there.
        """
        if split not in self.splits:
            raise InputError(f"cifar10 has no split '{split}'; it has {', '.join(self.splits)}.")
        if size < 8:
            raise InputError(f"cifar10 cannot be {size} pixels wide; choose a size of 8 or more.")
        self.size, self.split = size, split
        root = data_dir / "cifar10" / ("test" if split == "test" else "train")
        self.files: list[Path] = []
        for name in self.classes:
            found = sorted(p for p in (root / name).glob("*") if p.suffix in (".png", ".jpg"))
            if split != "test":
                held_out = found[TUNE_EVERY - 1 :: TUNE_EVERY]
                found = held_out if split == "tune" else [p for p in found if p not in set(held_out)]
            if not found:
                raise InputError(f"cifar10 has no {split} images in {root / name}; put them there, or mend --data-dir.")
            self.files += found
        self.ids = [f"{path.parent.name}-{path.parent.parent.name}-{path.stem}" for path in self.files]
        self.labels = torch.tensor([self.classes.index(path.parent.name) for path in self.files])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        try:
            image = Image.open(self.files[index]).convert("RGB")
        except OSError:
            raise InputError(f"{self.files[index]} is no image that can be read; replace it.") from None
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255, int(self.labels[index])
