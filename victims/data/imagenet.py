"""ImageNet (ILSVRC 2012) in folders: `<data_dir>/imagenet/{train,val}/<wnid>/<name>.JPEG`, or .png or .jpg."""

from pathlib import Path

from timm.data import ImageNetInfo

from victims.choices import Resize
from victims.data.files import ImageFiles, by_class


class ImageNet(ImageFiles):
    """ImageNet (ILSVRC 2012): photographs of a thousand classes.

    `tune` is an eighth of the validation folder, and `test` the rest. A label is the place of the folder's wnid in the
    sorted list of all thousand, also if some folders are missing.
    """

    name = "imagenet"
    classes = tuple(ImageNetInfo().label_names())
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    example = "n01440764/1.JPEG"

    def __init__(
        self, *, split: str = "test", size: int = 64, data_dir: Path = Path("data"), resize: Resize = "shorter"
    ) -> None:
        """
        Args:
            split: train, tune or test.
            size: side of the images in pixels.
            data_dir: the folder that holds `imagenet/`.
            resize: how images are resized.

        Raises:
            InputError: the split or the rule is unknown, the size below 8, or there are no images of the classes.
        """
        super().__init__(split=split, size=size, resize=resize)
        root = data_dir / "imagenet" / ("train" if split == "train" else "val")
        found = by_class(self.name, root, {wnid: label for label, wnid in enumerate(self.classes)})
        splits = ("train",) if split == "train" else ("tune", "test")
        self.take(list(found), [path.stem for path in found], list(found.values()), root=root, splits=splits)
