"""Tiny-ImageNet (Stanford CS231n, 2015): 200 of ImageNet's classes at 64 pixels, unpacked as it is published.

`<data_dir>/tiny-imagenet-200/` holds `wnids.txt`, `train/<wnid>/images/*`, `val/images/*` and
`val/val_annotations.txt`. The version at 32 pixels unpacks to the same files without a folder around them; put them
into `<data_dir>/tiny-imagenet-32/`. It is used if the other is missing.
"""

import warnings
from pathlib import Path

from victims.choices import Resize
from victims.data.base import some
from victims.data.files import ImageFiles, by_class, images_in
from victims.errors import InputError, Notice

CLASSES = 200
SMALL = "-32px"  # ends the ids of the smaller version, which has other pixels


class TinyImageNet(ImageFiles):
    """Tiny-ImageNet: photographs of 200 of ImageNet's classes.

    `tune` is an eighth of the validation images, and `test` the rest. A label is the place of the wnid in the sorted
    list. The test folder has no labels and is not used.
    """

    name = "tiny_imagenet"
    mean = (0.4802, 0.4481, 0.3975)  # of the training images at 64 pixels
    std = (0.2770, 0.2691, 0.2821)

    def __init__(
        self, *, split: str = "test", size: int = 64, data_dir: Path = Path("data"), resize: Resize = "shorter"
    ) -> None:
        """
        Args:
            split: train, tune or test.
            size: side of the images in pixels.
            data_dir: the folder that holds `tiny-imagenet-200/`.
            resize: how images are resized to another size.

        Raises:
            InputError: the split or the rule is unknown, the size below 8, there are no images, or a list of the data
                set is missing or broken.
        """
        super().__init__(split=split, size=size, resize=resize)
        root, small = data_dir / "tiny-imagenet-200", data_dir / "tiny-imagenet-32"
        ending = SMALL if small.is_dir() and not root.is_dir() else ""
        root = small if ending else root
        self.classes = sorted({wnid for (wnid,) in rows(root / "wnids.txt", columns=1)})
        if len(self.classes) != CLASSES:
            raise InputError(f"{root / 'wnids.txt'} lists {len(self.classes)} classes, not {CLASSES}; get it again.")
        labels = {wnid: label for label, wnid in enumerate(self.classes)}
        if split == "train":
            root = root / "train"
            found = by_class(self.name, root, labels, inside="images")
        else:
            root = root / "val"
            named = dict(rows(root / "val_annotations.txt", columns=2))
            images = images_in(root / "images")
            found = {path: labels[named[path.name]] for path in images if named.get(path.name) in labels}
            if unknown := [path.name for path in images if path not in found]:
                what = f"tiny_imagenet has no label in {root / 'val_annotations.txt'} for {some(unknown)}."
                warnings.warn(what, Notice, stacklevel=2)
        ids = [path.stem + ending for path in found]
        splits = ("train",) if split == "train" else ("tune", "test")
        self.take(list(found), ids, list(found.values()), root=root, splits=splits)

    @staticmethod
    def key(image_id: str) -> str:
        """The same for both versions, so that they are split alike."""
        return image_id.removesuffix(SMALL)


def rows(file: Path, *, columns: int) -> list[list[str]]:
    """The first columns of a table; lines with fewer columns are left out.

    Raises:
        InputError: it cannot be read.
    """
    try:
        lines = [line.split() for line in file.read_text(errors="replace").splitlines()]
    except OSError:
        raise InputError(f"tiny_imagenet has no {file}; unpack the data set there, or fix --data-dir.") from None
    return [line[:columns] for line in lines if len(line) >= columns]
