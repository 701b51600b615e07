"""The priors and weights that have names, read from their files: this module imports no torch.

A prior is one file of this folder. It has the class of its name (SomeName in `some_name.py`), a subclass of a
kind of `Prior`, which lists its published weights in `published` and loads them by `load_public`.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import priors
from victims.names import parsed

if TYPE_CHECKING:
    from priors.base import Prior

SHIPPED = Path(__file__).parent / "weights"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Weights that others have trained and published, in the layout of their authors. They are not shipped.

    Attributes:
        architecture: the prior that loads them.
        file: its name in `<weights_dir>/<folder>/`.
        size: side of the images in pixels; None where it takes any.
        trained_on: what the weights have seen.
        license: of the weights.
        source: where the file is available.
        sha256: of the file; None where it is not known for sure. Then a `<file>.json` beside the file with a `sha256`
            counts, if there is one.
        options: of the prior's `load_public`.
        folder: below the folder of weights.
    """

    architecture: str
    file: str
    size: int | None
    trained_on: str
    license: str
    source: str
    sha256: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    folder: str = "priors"

    def path(self, weights_dir: Path) -> Path:
        return weights_dir / self.folder / self.file


@dataclass(frozen=True)
class Architecture:
    """A prior of this folder, by the name of its file; `summary` is the first line of its class's docstring.

    Attributes:
        kind: of prior: the name of the base of its class, such as `generator`.
    """

    name: str
    kind: str
    class_name: str
    summary: str
    published: Mapping[str, Published]

    def load(self) -> "type[Prior]":
        """The class; this imports its file, and torch."""
        return getattr(import_module(f"priors.{self.name}"), self.class_name)


def architectures() -> dict[str, Architecture]:
    """Every prior of this folder."""
    paths = sorted(path for folder in priors.__path__ for path in Path(folder).glob("*.py"))
    found = (_read(path.stem, node) for path in paths for node in parsed(path).body)
    return {architecture.name: architecture for architecture in found if architecture}


def published() -> dict[str, Published]:
    """All published weights."""
    return {name: entry for architecture in architectures().values() for name, entry in architecture.published.items()}


def shipped() -> list[str]:
    """Names of the weights inside this package."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def _read(name: str, node: ast.stmt) -> Architecture | None:
    """The prior that a statement of the file `name` defines, if it defines one."""
    if not isinstance(node, ast.ClassDef) or node.name.lower() != name.replace("_", ""):
        return None
    kind = next((ast.unparse(base).rpartition(".")[2] for base in node.bases), "Module")
    if kind == "Module":  # a network that is no prior
        return None
    entries: dict[str, Any] = {}
    for statement in node.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name("published")], value=literal)
                | ast.AnnAssign(target=ast.Name("published"), value=ast.expr() as literal)
            ):
                entries = ast.literal_eval(literal)
    summary = (ast.get_docstring(node) or "").partition("\n")[0]
    weights = {title: Published(architecture=name, **facts) for title, facts in entries.items()}
    return Architecture(name, kind.lower(), node.name, summary, weights)
