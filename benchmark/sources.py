"""The source files of what goes into a run: of the classes that its options name, and of what the user's own import."""

import ast
import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import PathFinder
from itertools import accumulate, takewhile
from pathlib import Path

from benchmark.registry import KINDS
from priors.base import Prior

PROJECT = frozenset(("attacks", "benchmark", "defenses", "gibench", "leaderboard", "priors", "tests", "victims"))
BASES = (*KINDS.values(), Prior)
DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")

Modules = Mapping[str, Path]
"""Modules that are neither Python's nor installed, with their files: those of the project and the user's own."""


def loaded() -> Modules:
    files = {name: getattr(module, "__dict__", {}).get("__file__") for name, module in list(sys.modules.items())}
    return {name: Path(file) for name, file in files.items() if file and counts(name, file)}


def counts(name: str, file: str) -> bool:
    """Whether a module is neither Python's nor installed, nor made by what is, as torch's compiler makes modules."""
    root = getattr(sys.modules.get(top(name)), "__file__", None) or file
    installed = any(place in path for place in ("site-packages", "dist-packages") for path in (file, root))
    return top(name) not in sys.stdlib_module_names and not name.startswith("__") and not installed


def sources(modules: Modules, written: str, *named: Callable[..., object]) -> dict[str, str]:
    """Digests of the files of classes and functions, and of what the user's own among them import, see `followed`."""
    found = followed(modules, written, *named)
    return {file_name(name, path): of_bytes(path.read_bytes()) for name, path in sorted(found.items())}


def unimported(written: str) -> Modules:
    """The user's own modules that options name, and what these import, found without importing any."""
    named = {path.rpartition(".")[0] for path in DOTTED.findall(written)}
    return followed({name: path for name in named if (path := located(name))}, written)


def followed(modules: Modules, written: str, *named: Callable[..., object]) -> Modules:
    """The modules of classes and functions, and those that the user's own among them import.

    Of the project's files only those of named classes count: the version of the code says the rest. Own modules are
    followed by their names, in whatever way one imports another: `import b`, `from .b import c`, a text with its name;
    those that are imported only later, in a function, by their import statements.

    Args:
        modules: those that are loaded.
        written: options, which may hold dotted paths.
    """
    names = {path.rpartition(".")[0] for path in DOTTED.findall(written)}
    for one in named:
        lineage = takewhile(lambda base: base not in BASES, one.__mro__) if isinstance(one, type) else [one]
        names |= {getattr(base, "__module__", "") for base in lineage}
    found = {name: modules[name] for name in names & modules.keys()}
    new = {name: path for name, path in found.items() if top(name) not in PROJECT}
    while new:
        text = " ".join(path.read_text(errors="ignore") for path in new.values())
        mentioned = {top(name) for name in new} | set(re.findall(r"\w+", text))
        near = {name: path for name, path in modules.items() if top(name) in mentioned}
        for name, path in new.items():
            near |= imports(name, path)
        new = {name: path for name, path in near.items() if name not in found and top(name) not in PROJECT}
        found |= new
    return found


def imports(module: str, path: Path) -> Modules:
    """What a module's statements import, anywhere in its text, with the packages around it."""
    try:
        statements = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):  # no Python, such as a compiled module
        return {}
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    whole = {name for statement in statements for name in imported_by(statement, package)}
    names = {part for name in whole for part in accumulate(name.split("."), "{}.{}".format)}
    files = {name: located(name) for name in names}
    return {name: file for name, file in files.items() if file}


def imported_by(statement: ast.AST, package: str) -> Iterator[str]:
    """Names of modules that a statement in a package imports, and some that may be none: `from a import b`: a, a.b."""
    match statement:
        case ast.Import(names):
            yield from (each.name for each in names)
        case ast.ImportFrom(module, names, level):
            above = package.split(".")[: len(package.split(".")) - (level or 0) + 1] if level else []
            base = ".".join([*above, *([module] if module else [])])
            yield from (base, *(f"{base}.{each.name}" for each in names))
        case ast.Call(
            ast.Name("__import__" | "import_module") | ast.Attribute(attr="import_module"),
            [ast.Constant(str(name)), *_],
        ):
            yield name


def located(module: str) -> Path | None:
    """The file of a module, which is not imported for this; None if there is none, or it is Python's or installed."""
    try:
        spec = importlib.util.find_spec(top(module))
        names = accumulate(module.split("."), "{}.{}".format)
        next(names)
        for name in names:
            spec = spec and PathFinder.find_spec(name, spec.submodule_search_locations or [])
    except (ImportError, ValueError):
        return None
    file = spec.origin if spec and spec.has_location else None
    return Path(file) if file and counts(module, file) else None


def top(module: str) -> str:
    return module.partition(".")[0]


def file_name(module: str, path: Path) -> str:
    """A module's file from where it is imported, for it may lie elsewhere on another machine."""
    inside = "/__init__" if path.stem == "__init__" else ""
    return f"{module.replace('.', '/')}{inside}{path.suffix}"


def of_text(value: object) -> str:
    return of_bytes(repr(value).encode(errors="surrogatepass"))


def of_bytes(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()[:16]
