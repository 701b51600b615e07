"""ImageNet (ILSVRC 2012) in folders: `<data_dir>/imagenet/{train,val}/<wnid>/<name>.JPEG`, or .png or .jpg."""

from pathlib import Path

from timm.data import ImageNetInfo

from victims.data.files import ImageFiles, held_out, images_in
from victims.errors import InputError


class ImageNet(ImageFiles):
    """Photographs of a thousand classes. `tune` is an eighth of the validation folder, and `test` the rest.

    A label is the place of the folder's wnid among all thousand in order, whichever of them are there.
    """

    name = "imagenet"
    classes = tuple(ImageNetInfo().label_names())
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self, *, split: str = "test", size: int = 64, data_dir: Path = Path("data")) -> None:
        """
        Args:
            split: train, tune or test.
            size: side of the images in pixels.
            data_dir: the folder that holds `imagenet/`.

        Raises:
            InputError: the split is unknown, the size below 8, or there are no images of the thousand classes.
        """
        super().__init__(split=split, size=size)
        root = data_dir / "imagenet" / ("train" if split == "train" else "val")
        files = [path for wnid in self.classes for path in images_in(root / wnid)]
        files = files if split == "train" else held_out(files, split)
        if not files:
            raise InputError(f"imagenet has no {split} images in {root}/<wnid>; put them there, or mend --data-dir.")
        place = {wnid: label for label, wnid in enumerate(self.classes)}
        self.take(files, [path.stem for path in files], [place[path.parent.name] for path in files])
