"""FFHQ (Karras et al., 2019) with the ages of the ffhq-features data set.

Faces in `<data_dir>/ffhq/images<side>x<side>/<number>.png`, ages in `<data_dir>/ffhq/json/<number>.json`.
"""

import json
import warnings
from pathlib import Path

from victims.choices import Resize
from victims.data.base import some, split_of
from victims.data.files import ImageFiles, images_in
from victims.errors import InputError, Notice

TRAIN = 60_000  # the images below this number are the authors' training part


class FFHQ(ImageFiles):
    """FFHQ: aligned faces; a label is the decade of the age, as in GIFD.

    Faces without an age are left out. `test` is the authors' validation part; `tune` is an eighth of their training
    part, and `train` the rest.
    """

    name = "ffhq"
    classes = tuple(f"{decade}0s" for decade in range(10))
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)
    example = "images256x256/69000.png, with json/69000.json"
    faces = True

    def __init__(
        self, *, split: str = "test", size: int = 64, data_dir: Path = Path("data"), resize: Resize = "shorter"
    ) -> None:
        """
        Args:
            split: train, tune or test.
            size: side of the images in pixels. They come from the smallest files that are not enlarged, or the largest.
            data_dir: the folder that holds `ffhq/`.
            resize: how images are resized.

        Raises:
            InputError: the split or the rule is unknown, the size below 8, or there are no images with an age.
        """
        super().__init__(split=split, size=size, resize=resize)
        root = data_dir / "ffhq"
        sides = {path.name.rpartition("x")[2]: path for path in sorted(root.glob("images*x*"))}
        folders = {int(side): path for side, path in sides.items() if side.isdecimal()}
        side = min((s for s in folders if s >= self.shorter_side), default=max(folders, default=0))
        splits = ("test",) if split == "test" else ("train", "tune")
        faces = [path for path in images_in(folders.get(side, root / "images256x256")) if path.stem.isdecimal()]
        faces = [path for path in faces if (int(path.stem) < TRAIN) == (split != "test")]
        faces = [path for path in faces if split_of(path.stem, splits) == split]
        decades, broken = {}, []
        for path in faces:
            record = root / "json" / f"{path.stem}.json"
            try:
                decade = self.decade(record)
            except (OSError, ValueError):
                broken.append(record.name)
            else:
                if decade is not None:
                    decades[path] = decade
        if faces and not decades:
            raise InputError(f"ffhq has no ages for its {split} images in {root / 'json'}; put the json files there.")
        if broken:
            warnings.warn(f"ffhq leaves out faces whose record is no JSON: {some(broken)}.", Notice, stacklevel=2)
        if ageless := len(faces) - len(decades) - len(broken):
            what = f"ffhq leaves out {ageless} of {len(faces)} {split} faces, which have no age."
            warnings.warn(what, Notice, stacklevel=2)
        self.take(list(decades), [path.stem for path in decades], list(decades.values()), root=root, splits=splits)

    @staticmethod
    def decade(record: Path) -> int | None:
        """That of the first face; None if the record is missing, has no face, or the face has no age.

        Raises:
            ValueError: it is no JSON.
            OSError: it cannot be read.
        """
        if not record.is_file():
            return None
        faces = json.loads(record.read_bytes())
        try:
            return min(9, int(faces[0]["faceAttributes"]["age"]) // 10)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            return None
