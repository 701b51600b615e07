"""CIFAR-10 (Krizhevsky, 2009) in folders: `<data_dir>/cifar10/<split>/<class>/<name>.png`, or .jpg."""

from pathlib import Path

from victims.data.files import ImageFiles, held_out, images_in
from victims.errors import InputError


class CIFAR10(ImageFiles):
    """Natural images of ten classes. `tune` is an eighth of the training folder, and `train` the rest."""

    name = "cifar10"
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
        super().__init__(split=split, size=size)
        root = data_dir / "cifar10" / ("test" if split == "test" else "train")
        files: list[Path] = []
        for name in self.classes:
            found = images_in(root / name)
            found = found if split == "test" else held_out(found, split)
            if not found:
                raise InputError(f"cifar10 has no {split} images in {root / name}; put them there, or mend --data-dir.")
            files += found
        ids = [f"{path.parent.name}-{path.parent.parent.name}-{path.stem}" for path in files]
        self.take(files, ids, [self.classes.index(path.parent.name) for path in files])
