"""Data sets that consist of image files."""

import hashlib
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize, to_tensor

from victims.choices import Resize
from victims.data.base import ImageData, digest, some, split_of
from victims.data.decode import decode
from victims.errors import InputError, Notice

RULES: Mapping[str, tuple[float, InterpolationMode]] = {
    "shorter": (1, InterpolationMode.BICUBIC),
    "gifd": (1, InterpolationMode.BILINEAR),
    "gias": (9 / 8, InterpolationMode.BILINEAR),
    "ggl": (8 / 7, InterpolationMode.BILINEAR),
}

SUFFIXES = (*IMG_EXTENSIONS, ".gif", ".jfif")


class ImageFiles(ImageData):
    """Pictures with labels, resized to one size.

    A subclass sets `name`, and passes its pictures to `take`.
    """

    example = ""  # where in the folder that `take` is told a picture lies, for messages
    divided = "add images"  # how to fill a split that the hash left empty, for messages

    def __init__(self, *, split: str, size: int, resize: Resize) -> None:
        """
        Raises:
            InputError: the split or the rule is unknown, or the size below 8.
        """
        if split not in self.splits:
            raise InputError(f"{self.name} has no split '{split}'; it has {', '.join(self.splits)}.")
        if size < 8:
            raise InputError(f"{self.name} cannot be {size} pixels wide; choose a size of 8 or more.")
        if resize not in RULES:
            raise InputError(f"resize is one of {', '.join(RULES)}, not '{resize}'.")
        self.split, self.size = split, size
        scale, self.interpolation = RULES[resize]
        self.shorter_side = round(scale * size)

    def take(
        self,
        pictures: Sequence[Path | np.ndarray],
        ids: Sequence[str],
        labels: Sequence[int],
        *,
        root: Path,
        splits: Sequence[str],
    ) -> None:
        """Keep the pictures of this split.

        Args:
            pictures: files, or arrays (H, W, 3) of bytes.
            root: where they are from, for messages.
            splits: the splits that they are divided into, by the hash of their keys.

        Raises:
            InputError: there are none, or two have the same id.
        """
        kept = [place for place, name in enumerate(ids) if split_of(self.key(name), splits) == self.split]
        if ids and not kept and len(splits) > 1:
            raise InputError(
                f"{self.name} has no {self.split} images: by the hash of their names all in {root} ({len(ids)}) are of "
                f"other splits; {self.divided}."
            )
        if not kept:
            such = f", such as {self.example}" if self.example else ""
            raise InputError(
                f"{self.name} has no {self.split} images in {root}; put them there{such}, or fix --data-dir."
            )
        self.pictures = [pictures[place] for place in kept]
        self.ids = [printable(ids[place]) for place in kept]
        self.labels = torch.tensor([labels[place] for place in kept])
        name, count = Counter(self.ids).most_common(1)[0]
        if count > 1:
            raise InputError(f"{self.name} has {count} images called {name} in {root}; rename all but one.")

    def split_digest(self) -> str:
        """Of all ids and labels, and of the sizes of files or the bytes of arrays."""
        return digest(repr((self.ids, self.labels.tolist(), [stored(picture) for picture in self.pictures])))[:16]

    def stamp(self) -> str:
        """Of the times and sizes of all files; arrays are in `split_digest`."""
        return digest(repr([written(picture) for picture in self.pictures if not isinstance(picture, np.ndarray)]))

    def picture(self, index: int) -> Image.Image:
        """The stored picture, in RGB."""
        picture = self.pictures[index]
        return Image.fromarray(picture) if isinstance(picture, np.ndarray) else decode(picture)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = center_crop(resize(self.picture(index), self.shorter_side, self.interpolation), self.size)
        return to_tensor(image), int(self.labels[index])


def stored(picture: Path | np.ndarray) -> str:
    """What tells a stored picture from another: the size of a file, or a digest of an array."""
    if isinstance(picture, np.ndarray):
        return hashlib.sha256(picture.tobytes()).hexdigest()
    try:
        return str(Path(picture).stat().st_size)
    except OSError:  # it is gone, or cannot be read either
        return ""


def written(file: Path) -> tuple[int, ...]:
    """The size of a file, when it was written, and when its status changed, which nobody can set back; times in ns."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def printable(name: str) -> str:
    """The name, with escapes for control characters and bytes that are no text, which tables cannot hold."""
    odd = ("Cc", "Cs")
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in odd else c for c in name)


def images_in(folder: Path) -> list[Path]:
    """The images of a folder in the order of their names; none if there is no such folder.

    `._NAME` is no image but what macOS keeps of NAME on file systems of others.
    """
    found = (path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in found if not path.name.startswith("._"))


def by_class(name: str, root: Path, labels: Mapping[str, int], inside: str = "") -> dict[Path, int]:
    """The images in `root/<class>/` with their labels; a Notice names classes without any.

    Args:
        name: of the data set, for the Notice.
        labels: of the folder of each class.
        inside: the folder inside the folder of a class that holds its images.
    """
    found = {folder: images_in(root / folder / inside) for folder in labels}
    empty = [folder for folder, paths in found.items() if not paths]
    if 0 < len(empty) < len(found):
        warnings.warn(f"{name} has no images in {root} of {some(empty)}.", Notice, stacklevel=2)
    return {path: labels[folder] for folder, paths in found.items() for path in paths}
