"""FFHQ (Karras et al., 2019) with the ages of the ffhq-features data set.

Faces in `<data_dir>/ffhq/images<side>x<side>/<number>.png`, ages in `<data_dir>/ffhq/json/<number>.json`.
"""

import json
from pathlib import Path

from victims.data.files import ImageFiles, held_out, images_in
from victims.errors import InputError

TRAIN = 60_000  # the images below this number, as the data set's authors divide it


class FFHQ(ImageFiles):
    """Aligned faces; a label is the decade of the age, as GIFD has it. Faces without an age are left out.

    `test` is the authors' validation part; `tune` is an eighth of their training part, and `train` the rest.
    """

    name = "ffhq"
    classes = tuple(f"{decade}0s" for decade in range(10))
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(self, *, split: str = "test", size: int = 64, data_dir: Path = Path("data")) -> None:
        """
        Args:
            split: train, tune or test.
            size: side of the images in pixels; taken from the smallest files that are no smaller, or the largest.
            data_dir: the folder that holds `ffhq/`.

        Raises:
            InputError: the split is unknown, the size below 8, or there are no images with an age.
        """
        super().__init__(split=split, size=size)
        root = data_dir / "ffhq"
        folders = {int(path.name.rpartition("x")[2]): path for path in root.glob("images*x*")}
        side = min((s for s in folders if s >= size), default=max(folders, default=0))
        found = images_in(folders.get(side, root / "images256x256"))
        part = [path for path in found if (int(path.stem) < TRAIN) == (split != "test")]
        part = part if split == "test" else held_out(part, split)
        decades = {path: self.decade(root / "json" / f"{path.stem}.json") for path in part}
        aged = [path for path, decade in decades.items() if decade is not None]
        if not aged:
            raise InputError(
                f"ffhq has no {split} images with an age in {root}; put images256x256/ and json/ there, "
                "or mend --data-dir."
            )
        self.take(aged, [path.stem for path in aged], [decades[path] for path in aged])

    @staticmethod
    def decade(record: Path) -> int | None:
        """The first face's; None where the record is missing or has no face.

        Raises:
            InputError: it is no JSON.
        """
        if not record.is_file():
            return None
        try:
            faces = json.loads(record.read_text())
        except json.JSONDecodeError:
            raise InputError(f"{record} is no JSON; get it again.") from None
        return min(9, int(faces[0]["faceAttributes"]["age"]) // 10) if faces else None
