"""CIFAR-10 (Krizhevsky, 2009), as its authors' files or in folders.

The files: `<data_dir>/cifar-10-batches-py/`, read by torchvision, which compares their checksums before it unpickles.
Folders: `<data_dir>/cifar10/{train,test}/<class>/<number>.png`; the number, in five digits, is the place of the image
in the authors' files. Files with other names or formats count as other images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torchvision import datasets

from victims.choices import Resize
from victims.data.files import ImageFiles, by_class
from victims.errors import InputError


class CIFAR10(ImageFiles):
    """CIFAR-10: natural images of ten classes.

    `tune` is an eighth of the training images, and `train` the rest.
    """

    name = "cifar10"
    classes: Sequence[str] = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    mean = (0.4914, 0.4822, 0.4465)  # of the official training images
    std = (0.2470, 0.2435, 0.2616)
    published = datasets.CIFAR10
    example = "airplane/00001.png"

    def __init__(
        self, *, split: str = "test", size: int = 32, data_dir: Path = Path("data"), resize: Resize = "shorter"
    ) -> None:
        """
        Args:
            split: train, tune or test.
            size: side of the images in pixels.
            data_dir: the folder that holds the authors' folder, or else `cifar10/` with class folders.
            resize: how images are resized to a size other than 32.

        Raises:
            InputError: the split or the rule is unknown, the size below 8, there are no images, or the authors'
                files are not as they were published.
        """
        super().__init__(split=split, size=size, resize=resize)
        part = "test" if split == "test" else "train"
        pictures: Sequence[Path | np.ndarray]
        if (data_dir / self.published.base_folder).is_dir():
            root = data_dir / self.published.base_folder
            try:
                whole = self.published(data_dir, train=part == "train", download=False)
            except RuntimeError:
                raise InputError(
                    f"{root} is incomplete, or its checksums are not the published ones; get it again."
                ) from None
            pictures, labels = list(whole.data), whole.targets
            ids = [f"{self.classes[label]}-{part}-{place:05d}" for place, label in enumerate(labels)]
        else:
            root = data_dir / self.name / part
            found = by_class(self.name, root, {name: label for label, name in enumerate(self.classes)})
            pictures, labels = list(found), list(found.values())
            names = [path.stem if path.suffix == ".png" else path.name for path in found]
            ids = [f"{self.classes[label]}-{part}-{name}" for label, name in zip(labels, names, strict=True)]
        self.take(pictures, ids, labels, root=root, splits=("test",) if part == "test" else ("train", "tune"))

    @staticmethod
    def key(image_id: str) -> str:
        """`test-00123` for `cat-test-00123`: the class is known only from the files."""
        return image_id.partition("-")[2]
