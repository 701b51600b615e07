"""Everything that has a name on the command line, read from the source files without importing them.

Importing torch takes seconds, so a list of names, or the answer to a mistyped one, must not need it. Each kind has a
folder, and adding something to it is one file there; only the files' names, docstrings and a few literals are read.
"""

import ast
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from typing import Literal

from priors import names
from victims.errors import InputError
from victims.names import parsed, unknown

ROOT = Path(__file__).resolve().parents[1]

Kind = Literal[
    "attack",
    "prior",
    "victim",
    "data",
    "defense",
    "label method",
    "loss",
    "local optimizer",
    "metric",
    "recipe",
    "track",
    "label track",
]


@dataclass(frozen=True)
class Named:
    """What a name means.

    Attributes:
        module, attribute: where it is defined; empty where it is a file of data.
        summary: one line.
    """

    module: str
    attribute: str
    summary: str


OF_DATA: tuple[Kind, ...] = ("recipe", "track")  # the user's own is a file


Pairs = Iterator[tuple[str, Named]]
"""Names, and what they mean."""


def known(kind: Kind) -> dict[str, Named]:
    """Everything of this kind that the project has, by name, sorted."""
    return dict(sorted(KINDS[kind](), key=itemgetter(0)))


def require(kind: Kind, name: str) -> None:
    """Refuse a mistyped name early.

    Raises:
        InputError: the name is neither known nor a dotted path; lists the known names and the nearest one.
    """
    if "." not in name and name not in known(kind):
        raise InputError(unknown(kind, name, known(kind), **({"own": "a .yaml file"} if kind in OF_DATA else {})))


def summary(node: ast.AST) -> str:
    """The first sentence of a docstring, or nothing."""
    text = ast.get_docstring(node) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) else None
    return first_sentence(text or "")


def first_sentence(text: str) -> str:
    """On one line. An abbreviation such as `et al.` ends no sentence if what follows begins with a small letter."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z`])", paragraph, maxsplit=1)[0]


def by_attribute(path: Path, module: str) -> Pairs:
    """Classes that say their name themselves: `name = "ig"`."""
    for node in parsed(path).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for line in node.body:
            match line:
                case (
                    ast.Assign(targets=[ast.Name(id="name")], value=ast.Constant(value=str(name)))
                    | ast.AnnAssign(target=ast.Name(id="name"), value=ast.Constant(value=str(name)))
                ):
                    yield name, Named(module, node.name, summary(node))


def by_file(kind: type[ast.ClassDef] | type[ast.FunctionDef], path: Path, module: str) -> Pairs:
    """The class SomeName, or the function some_name, of the file `some_name.py`."""
    for node in parsed(path).body:
        if isinstance(node, kind) and node.name.lower().replace("_", "") == path.stem.replace("_", ""):
            yield path.stem, Named(module, node.name, summary(node))


def by_decorator(path: Path, module: str) -> Pairs:
    """Functions under `@metric(...)`."""
    for node in parsed(path).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "metric":
                yield node.name, Named(module, node.name, summary(node))


def by_comment(path: Path, module: str) -> Pairs:
    """A file of data that begins with a comment on what it is."""
    yield path.stem, Named("", "", first_sentence(comment(path)))


def comment(path: Path) -> str:
    """The comment on top of a file, on one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    return " ".join(line.lstrip("# ") for line in lines)


def priors() -> Pairs:
    """Shipped weights, published ones, and the architectures whose name does not mean weights."""
    architectures, published = names.architectures(), names.published()
    for name in names.shipped():
        record = json.loads((names.SHIPPED / f"{name}.json").read_text())
        of, on = record["prior"], record["trained_on"]
        yield name, Named("", "", f"shipped {architectures[of].kind}: {of}, trained on {on}")
    for name, entry in published.items():
        of, on = entry.architecture, entry.trained_on
        yield name, Named("", "", f"published {architectures[of].kind}: {of}, trained on {on}; {entry.license}")
    for name, architecture in architectures.items():
        if name in published:
            continue
        about = f"untrained {architecture.kind}: {architecture.summary}"
        yield name, Named(f"priors.{name}", architecture.class_name, about)


def of_files(package: str, files: str, read: Callable[[Path, str], Pairs]) -> Pairs:
    """The names in the files of a package. This imports its `__init__.py`, which must not import torch."""
    paths = (path for folder in import_module(package).__path__ for path in Path(folder).glob(files))
    return (pair for path in paths for pair in read(path, f"{package}.{path.stem}"))


KINDS: Mapping[Kind, Callable[[], Pairs]] = {
    "attack": partial(of_files, "attacks", "*.py", by_attribute),
    "prior": priors,
    "victim": partial(of_files, "victims.models", "*.py", partial(by_file, ast.ClassDef)),
    "data": partial(of_files, "victims.data", "*.py", partial(by_file, ast.ClassDef)),
    "defense": partial(of_files, "defenses", "*.py", partial(by_file, ast.ClassDef)),
    "label method": partial(of_files, "attacks.labels", "*.py", partial(by_file, ast.FunctionDef)),
    "loss": partial(of_files, "victims.losses", "*.py", partial(by_file, ast.ClassDef)),
    "local optimizer": partial(of_files, "victims.optimizers", "*.py", partial(by_file, ast.ClassDef)),
    "metric": partial(of_files, "benchmark.scoring", "metrics.py", by_decorator),
    "recipe": partial(of_files, "benchmark.recipes", "*.yaml", by_comment),
    "track": partial(of_files, "benchmark.tracks", "*.yaml", by_comment),
    "label track": partial(of_files, "benchmark.tracks.labels", "*.yaml", by_comment),
}
"""How the names of a kind are found."""
