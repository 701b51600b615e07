"""The pictures of an audit and their classes: class folders or a table become what `folder:PATH` reads."""

import contextlib
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from victims.data.base import digest, some
from victims.data.files import SUFFIXES, images_in, printable
from victims.data.folder import CLASSES, folders_in, read_classes
from victims.data.table import read_table
from victims.errors import InputError, Notice

NUMBER = re.compile(r"(\d{1,9})(\.0*)?")  # 3.0 is what a spreadsheet or pandas may make of 3
MOST = 100_000  # classes that are numbers


def arrange(images: Path, labels: Path | None, into: Path, classes: str | None = None) -> None:
    """Make links to the pictures in `into/<class>/`, all of one split, in place of those of an earlier audit.

    The model's classes in their order lie beside `into`, see `victims.data.folder`.

    Args:
        labels: a table; without it the classes are the folders in `images`, also those without pictures.
        classes: the model's classes: a file with their names, or their number. By default those that are there.

    Raises:
        InputError: there are no pictures, the table does not give their labels, or a label is no class.
    """
    if not images.is_dir():
        raise InputError(f"there is no folder {images}; give one with a folder of pictures for each class.")
    if labels is None:
        found = {path: name for name in folders_in(images) for path in images_in(images / name)}
        if not found:
            flat = f"{images} has pictures, but no class folders; give --labels with the columns file,label."
            raise InputError(
                flat if images_in(images) else f"there are no pictures in {images}/<class>/; put some there."
            )
        known = listed(classes) if classes else folders_in(images)
        if not classes and all(map(NUMBER.fullmatch, known)) and known != sorted(known, key=float):
            what = f"class folders are ordered as text, {some(known)}, as torchvision's ImageFolder does"
            warnings.warn(f"{what}; for the order of numbers give --classes NUMBER.", Notice, stacklevel=2)
    else:
        found = read_labels(images, labels)
        known = listed(classes) if classes else counted(found.values(), labels)
    if odd := [name for name in known if not fits(name)]:
        raise InputError(f"a class is called {odd[0]!a}; give it a printable name without / or a dot in front.")
    found = dict(zip(found, classes_of(found.values(), known), strict=True))
    for old in into.glob("*/*"):
        if old.is_symlink():  # and nothing else that lies there
            old.unlink()
    for folder in into.glob("*"):
        with contextlib.suppress(OSError):  # it is a file, or something else lies there
            folder.rmdir()
    for path, name in file_names(images, found).items():
        (into / found[path]).mkdir(parents=True, exist_ok=True)
        (into / found[path] / name).symlink_to(path.resolve())
    (into.parent / CLASSES).write_text("\n".join(known) + "\n", "utf-8")


def read_labels(images: Path, labels: Path) -> dict[Path, str]:
    """The label of every picture in the table, see `read_table`.

    Raises:
        InputError: it cannot be read, lacks a column, names a file that is missing, or gives one two labels.
    """
    found: dict[Path, str] = {}
    for line in read_table(labels, ("file", "label")):
        file, label = line.get("file", ""), line.get("label", "")
        path = find(images, file)
        if path is None:
            raise InputError(f"{labels} names {file}, which is not in {images}.")
        if not fits(label):
            raise InputError(f"{labels} gives {file} the label '{label}'; give a name without / or a dot in front.")
        if found.setdefault(path, label) != label:
            raise InputError(f"{labels} gives {file} the labels {found[path]} and {label}; keep one.")
    return found


def find(images: Path, file: str) -> Path | None:
    """The picture that a table means; it may leave out the suffix, or write the path as another system does."""
    slashed = file.replace("\\", "/")
    spelled = (file, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD")))
    names = (name + suffix for suffix in ("", *SUFFIXES) for name in spelled if name)
    return next((images / name for name in names if os.path.isfile(images / name)), None)


def fits(name: str) -> bool:
    """Whether a folder of a class can have this name."""
    plain = name == printable(name) and name == Path(name.strip()).name != ""
    return plain and not name.startswith(".") and len(os.fsencode(name)) < 256


def listed(classes: str) -> list[str]:
    """The classes of the model: the lines of a file, or 0, 1, ... up to a number.

    Raises:
        InputError: no such file.
    """
    if classes.isdecimal():
        if len(classes) > len(str(MOST)) or int(classes) > MOST:
            raise InputError(f"classes is {classes}; give their number, at most {MOST}, or a file with their names.")
        return [str(k) for k in range(int(classes))]
    if not os.path.isfile(classes):
        raise InputError(
            f"classes is '{classes}'; give a file with one class per line in the model's order, or a number."
        )
    return read_classes(Path(classes))


def counted(labels: Iterable[str], table: Path) -> list[str]:
    """The classes of a table alone: of numbers all up to the largest, in their order; else the names in theirs.

    Raises:
        InputError: there would be too many.
    """
    names = sorted(set(labels))
    if not all(NUMBER.fullmatch(name) for name in names):
        return names
    largest = max(int(float(name)) for name in names)
    if largest >= MOST:
        raise InputError(f"{table} has labels up to {largest}; give the model's classes as --classes FILE.")
    return [str(k) for k in range(largest + 1)]


def classes_of(labels: Iterable[str], known: list[str]) -> list[str]:
    """The class of each label: its name, or its place among the model's classes if all labels are numbers.

    Raises:
        InputError: labels are no classes.
    """
    given = list(labels)
    names = set(known)
    if not set(given) <= names and all(NUMBER.fullmatch(label) for label in given):
        places = [int(float(label)) for label in given]
        if max(places) < len(known):
            return [known[place] for place in places]
    if outside := sorted(set(given) - names):
        raise InputError(f"{some(outside)} is none of the model's {len(known)} classes, {some(known)}; fix --classes.")
    return given


def file_names(images: Path, found: Mapping[Path, str]) -> dict[Path, str]:
    """What each picture is called in the folder of its class: its own name where no other has it and it ends as one."""
    count = Counter((label, path.name) for path, label in found.items())
    names = {}
    for path, label in found.items():
        suffix = path.suffix if path.suffix.lower() in SUFFIXES else ".png"  # it is decoded by its content
        unique = count[label, path.name] == 1 and suffix == path.suffix
        short = f"{path.stem[:40]}-{digest(os.path.relpath(path, images))[:8]}{suffix}"
        names[path] = path.name if unique else short
    return names
