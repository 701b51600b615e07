"""Names that users type: the nearest known one, files that define them, and dotted paths to classes of their own."""

import ast
import difflib
import importlib
import inspect
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from victims.contract import Broken, line_of, line_of_error
from victims.errors import InputError

T = TypeVar("T")


def unknown(kind: str, name: str, known: Iterable[str], own: str = "a dotted path to your own") -> str:
    """One line that lists the known names, and the nearest one.

    Args:
        own: how the user's own is named.
    """
    known = sorted(known)
    if not name:
        return f"unknown {kind} '': a name is empty; leave out the comma that is too many."
    return f"unknown {kind} '{name}'; {nearest(name, known)}known: {', '.join(known)}, or {own}."


def separated(text: str) -> list[str]:
    """The names between commas, without the blanks around them."""
    return [name.strip() for name in text.split(",")]


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that offers the nearest known name; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean '{near[0]}'? " if near else ""


def parsed(path: Path) -> ast.Module:
    """A file's statements, from which names are read without importing it.

    Raises:
        InputError: the file is not Python.
    """
    return syntax_tree(path, path.stat().st_mtime_ns)


@cache
def syntax_tree(path: Path, changed: int) -> ast.Module:
    """As `parsed`, of a file that was changed at that time (ns): names are looked up for every run of a search."""
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{path} is not valid Python ({error}); fix the file or move it elsewhere.") from None


def is_dotted_path(name: str) -> bool:
    """Whether a name is a dotted path to the user's own, and not that of a library's victim, `timm:NAME`."""
    return "." in name.partition(":")[0]


def imported(kind: str, path: str, base: type[T]) -> type[T]:
    """The class at a dotted path, a subclass of `base`; for a victim also a function that builds one.

    Raises:
        InputError: says what is wrong with the path, or which methods the class lacks.
    """
    item = at(kind, path)
    builds = kind == "victim" and inspect.isfunction(item)
    if not builds and not (isinstance(item, type) and issubclass(item, base)):
        raise InputError(f"'{path}' is not a subclass of {base.__module__}.{base.__name__}.")
    if missing := sorted(getattr(item, "__abstractmethods__", ())):
        wrong = f"{item.__name__} lacks {', '.join(missing)}; write what {base.__module__} says of it"
        raise Broken("a class defines what its base leaves open", wrong, line_of(item))
    return item


def at(kind: str, path: str) -> Any:
    """What lies at a dotted path, such as `my.module.Name`.

    Raises:
        InputError: it is no dotted path, or nothing can be imported from there.
    """
    if not all(part.isidentifier() for part in path.split(".")):
        raise InputError(f"cannot import the {kind} '{path}': write a dotted path such as my.module.Name.")
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except InputError:
        raise
    except (ImportError, AttributeError) as error:
        fix = "."
        if isinstance(error, ModuleNotFoundError):
            absent = error.name == path.partition(".")[0]
            fix = "; put the folder of its file on PYTHONPATH." if absent else "; install it, or correct the name."
        elif isinstance(error, AttributeError) and module in sys.modules:
            near = nearest(attribute, vars(sys.modules[module]))
            fix = f"; {near.strip() or 'give a name that is there.'}"
        raise InputError(f"cannot import the {kind} '{path}': {error}{fix}") from None
    except Exception as error:  # of the module's own statements
        place = line_of_error(error)
        what = f"{type(error).__name__}: {error}" + (f", at {place}" if place else "")
        raise InputError(f"cannot import the {kind} '{path}': {what}.") from None
