"""`folder:PATH`: images of your own, in class folders."""

import csv
from collections import Counter
from pathlib import Path

from victims.choices import Resize
from victims.data.base import some
from victims.data.files import ImageFiles, by_class
from victims.data.table import read_names
from victims.errors import InputError

CLASSES = "classes.txt"


class Folder(ImageFiles):
    """Images of your own, in `PATH/<class>/` (split by hash) or in `PATH/{train,tune,test}/<class>/`.

    A label is the place of the class folder in the order of their names, over all splits; or in that of a model's
    classes, if `PATH/classes.txt` lists them, one a line. Without a folder of its own, `tune` is an eighth of `train`.
    """

    name = "folder"
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)
    divided = "add images, or divide them yourself into the folders train/, tune/ and test/"

    def __init__(self, path: Path, *, split: str = "test", size: int = 64, resize: Resize = "shorter") -> None:
        """
        Args:
            path: the folder.
            split: train, tune or test.
            size: side of the images in pixels.
            resize: how images are resized.

        Raises:
            InputError: the split or the rule is unknown, the size below 8, there are no such images, or a class
                folder is not in the list.
        """
        super().__init__(split=split, size=size, resize=resize)
        path = Path(path)
        given = [name for name in self.splits if folders_in(path / name)]
        if not given:
            root, splits, prefix = path, self.splits, ""
            self.classes = folders_in(path)
        else:
            part = "train" if split == "tune" and "tune" not in given else split
            root, prefix = path / part, f"{part}-"
            splits = ("train", "tune") if part == "train" and "tune" not in given else (part,)
            self.classes = sorted({folder for name in given for folder in folders_in(path / name)})
        if listed := (path / CLASSES).is_file():
            there, self.classes = self.classes, read_classes(path / CLASSES)
            if outside := [name for name in there if name not in self.classes]:
                raise InputError(
                    f"{path / CLASSES} does not list {some(outside)}; add what is missing, or remove the file."
                )
        labels = {folder: label for label, folder in enumerate(self.classes)}
        if listed:  # images of some of a model's classes are no reason for a Notice
            labels = {folder: labels[folder] for folder in folders_in(root)}
        found = by_class(self.name, root, labels)
        if not found:
            raise InputError(f"folder has no {split} images in {root}/<class>; put them there, or give another PATH.")
        ids = [f"{prefix}{file.parent.name}-{file.name}" for file in found]
        self.take(list(found), ids, list(found.values()), root=root, splits=splits)


def folders_in(path: Path) -> list[str]:
    """Names of the folders inside, in order, without hidden ones; none if there is no such folder."""
    return sorted(child.name for child in path.glob("[!.]*") if child.is_dir())


def read_classes(file: Path) -> list[str]:
    """The names of a model's classes in its order: the lines of a file, without empty ones.

    Raises:
        InputError: it is no text, or a name is there twice.
    """
    try:
        names = read_names(file)
    except (OSError, UnicodeError, csv.Error):
        raise InputError(f"{file} cannot be read; give the names of the classes in UTF-8, one a line.") from None
    name, count = Counter(names).most_common(1)[0] if names else ("", 1)
    if not names or count > 1:
        raise InputError(f"{file} has {f'{count} classes {name}' if names else 'no classes'}; give each one name.")
    return names
