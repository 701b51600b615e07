"""Fixed tasks: the images of a data set that are attacked first, in order: `<data>-<split>.txt` beside this file."""

import shlex
from pathlib import Path

from victims.errors import InputError


def listed(name: str, split: str) -> list[str]:
    """The keys of a split's images in the order of the tasks; empty if the data set has no list."""
    file = manifest(name, split)
    return [key for line in lines(file).values() for key in line] if file.is_file() else []


def manifest(name: str, split: str) -> Path:
    """The file of a split's list, whether or not it exists."""
    return Path(__file__).with_name(f"{name}-{split}.txt")


def lines(file: Path) -> dict[int, list[str]]:
    """The words of every line that has any, by its number from 1, without comments (#).

    A word in quotes can hold blanks.

    Raises:
        InputError: it cannot be read.
    """
    try:
        split = [shlex.split(line, comments=True) for line in file.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as lines of image ids ({error}); fix it.") from None
    return {number: words for number, words in enumerate(split, start=1) if words}
