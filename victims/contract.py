"""What somebody writes for this suite keeps contracts; where one is broken, an error names it and the author's line."""

import errno
import inspect
import sysconfig
import traceback
from collections.abc import Generator
from functools import cache, partial
from pathlib import Path
from types import CodeType
from typing import Any

from victims.errors import InputError, Unfinished

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("attacks", "benchmark", "defenses", "gibench", "leaderboard", "priors", "tests", "victims")
NOT_OWN = (*(f"{ROOT / package}/" for package in PACKAGES), f"{sysconfig.get_path('stdlib')}/", "<")


class Broken(InputError):
    """A contract is broken: one line that says which, where, what is wrong and how to fix it.

    Attributes:
        contract: what should hold.
        why: what does not, and the author's line.
    """

    def __init__(self, contract: str, wrong: str, place: str) -> None:
        self.contract, self.why = contract, f"{wrong} ({place})" if place else wrong
        super().__init__(f"the contract '{contract}' is broken: {self.why}.")


def line_of(*things: Any) -> str:
    """FILE:LINE of the first of these functions, classes, objects or running generators that is the author's own.

    Where none is, of the first that has a line.
    """
    found = [place for place in map(place_of, things) if place]
    own = [place for place in found if is_users_file(place[0])]
    return shown(*(own or found)[0]) if found else ""


def place_of(thing: Any) -> tuple[str, int] | None:
    """File and line where it is written; of a running generator, where it is."""
    if isinstance(thing, partial):
        return place_of(thing.func)
    if isinstance(thing, Generator):
        inner = getattr(thing, "gi_yieldfrom", None)
        if inner is not None:
            return place_of(inner)
        frame = getattr(thing, "gi_frame", None)
        return (frame.f_code.co_filename, frame.f_lineno) if frame else None
    if isinstance(thing, type):
        return place_of_class(thing)
    code = getattr(inspect.unwrap(thing) if callable(thing) else thing, "__code__", None)
    if isinstance(code, CodeType):
        return code.co_filename, code.co_firstlineno
    return None if type(thing).__module__ in ("builtins", "operator") else place_of(type(thing))


@cache
def place_of_class(of: type) -> tuple[str, int] | None:
    """File and line where a class is written; every time it is asked for, its whole file would be parsed."""
    try:
        return inspect.getsourcefile(of) or "", inspect.getsourcelines(of)[1]
    except (OSError, TypeError):  # without a file
        return None


def line_of_error(error: BaseException, *things: Any) -> str:
    """FILE:LINE of the author's last line on the way to an error; else that of the things."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users_file(frame.filename)]
    return shown(frames[-1].filename, frames[-1].lineno or 0) if frames else line_of(*things)


def refusal(error: Exception) -> str:
    """Why a method is left out, in one line: what refused it, or what its author's code raised and where.

    Raises:
        OSError, Unfinished: it is such an error, of the machine and of no method: the disk is full, or no line of an
            author's is on the way to it.
    """
    place, full = line_of_error(error), getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, Unfinished) or (isinstance(error, OSError) and (full or not place)):
        raise error
    if isinstance(error, InputError):
        return str(error)
    return f"broken: {type(error).__name__}: {' '.join(str(error).split())}" + (f" ({place})" if place else "")


def is_users_file(file: str) -> bool:
    """Whether a file is neither of this suite nor installed."""
    return not file.startswith(NOT_OWN) and "site-packages" not in file and "dist-packages" not in file


def shown(file: str, line: int) -> str:
    """As seen from the current folder, if the file is inside it."""
    path, here = Path(file), Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{line}"
