"""Where a generator comes from: everything that `--prior` may say, and published weights by name."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from priors import biggan, dcgan_faces, stylegan2, weights
from priors.base import Prior
from victims.errors import InputError, Notice
from victims.names import imported, unknown
from victims.victim import build

PUBLIC: Mapping[str, Callable[..., Prior]] = {
    "biggan": biggan.load_public,
    "dcgan_faces": dcgan_faces.load_public,
    "stylegan2": stylegan2.load_public,
}
"""Loaders of files in the layout of an architecture's authors."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Published weights.

    Attributes:
        architecture: one of `PUBLIC`.
        file: its name in `<weights_dir>/priors/`.
        size: side of the images in pixels.
        options: of the architecture's loader.
        sha256: None where it is not known for sure.
        source: where the file can be had.
    """

    architecture: str
    file: str
    size: int
    options: Mapping[str, Any]
    trained_on: str
    license: str
    source: str
    sha256: str | None

    def path(self, weights_dir: Path) -> Path:
        return weights_dir / "priors" / self.file


CATALOG: Mapping[str, Entry] = {
    name: Entry(**entry) for name, entry in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text()).items()
}


def find(spec: str, weights_dir: Path, *, size: int, seed: int) -> Prior:
    """The generator, in eval mode, its parameters frozen.

    Args:
        spec: the name of shipped weights or of an entry of `CATALOG`; ARCHITECTURE:FILE, in the layout of its
            authors; FILE.safetensors, in this suite's own; ARCHITECTURE or ARCHITECTURE:SIZE, with random weights; or
            a dotted path to a class, built without arguments.
        weights_dir: the folder that holds `priors/` with the catalog's files.
        size: side of the task's images, which a `dcgan` without a size follows.
        seed: of random weights.

    Raises:
        InputError: says which file is missing and where it can be had, what is wrong with it, or what names there are.
    """
    architecture, _, detail = spec.partition(":")
    if spec in weights.shipped():
        return weights.load(weights.SHIPPED / f"{spec}.safetensors")
    if spec in CATALOG:
        return published(spec, weights_dir)
    if architecture in weights.ARCHITECTURES:
        if detail and not detail.isdecimal():
            return load_public(architecture, Path(detail))
        follows = size if architecture == "dcgan" else None
        return untrained(architecture, int(detail) if detail else follows, seed)
    if spec.endswith(".safetensors"):
        return weights.load(Path(spec))
    if Path(spec).suffix in (".bin", ".pkl", ".pt", ".pth"):
        raise InputError(f"{spec} does not say which generator it is; write ARCHITECTURE:{spec}.")
    if "." in spec:
        return frozen(build(imported("prior", spec, Prior), seed=seed))
    ways = ("ARCHITECTURE:SIZE", "ARCHITECTURE:FILE", "FILE.safetensors")
    raise InputError(unknown("prior", architecture, [*weights.shipped(), *CATALOG, *weights.ARCHITECTURES, *ways]))


def published(name: str, weights_dir: Path) -> Prior:
    """The catalog's entry."""
    entry = CATALOG[name]
    path = entry.path(weights_dir)
    if not path.is_file():
        raise InputError(
            f"prior {name} needs {path.name}, which is not in {path.parent}; put it there, or fix --weights-dir. "
            f"It can be had from {entry.source}."
        )
    prior = load_public(entry.architecture, path, entry.sha256, **entry.options)
    prior.trained_on = entry.trained_on
    return prior


def load_public(architecture: str, path: Path, sha256: str | None = None, **options: Any) -> Prior:
    """A file in the layout of the architecture's authors, its SHA-256 checked where one is known."""
    if architecture not in PUBLIC:
        raise InputError(f"{architecture} has no layout but this suite's own; give a .safetensors file alone.")
    if path.is_file():
        weights.verify(path, sha256)
    return PUBLIC[architecture](path, **options)


def untrained(architecture: str, size: int | None, seed: int) -> Prior:
    """Random weights; of the architecture's own size where none is given."""
    make = weights.ARCHITECTURES[architecture]
    if size is not None and "size" not in inspect.signature(make).parameters:
        raise InputError(f"{architecture} comes in one size; write {architecture} alone.")
    warnings.warn(f"prior {architecture} is untrained; for trained ones see `prior list`.", Notice, stacklevel=1)
    return frozen(build(make, seed=seed, **({} if size is None else {"size": size})))


def frozen(prior: Prior) -> Prior:
    return prior.eval().requires_grad_(False)
