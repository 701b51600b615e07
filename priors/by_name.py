"""Everything that `--prior` may say: shipped and published weights, files, and random weights."""

import inspect
import warnings
from pathlib import Path

from priors import names, weights
from priors.base import Prior
from priors.inverters import Inverter
from victims.checkpoints import require_finite
from victims.errors import InputError, Notice
from victims.modules import build
from victims.names import imported, is_dotted_path, unknown

SUFFIXES = (".bin", ".ckpt", ".pkl", ".pt", ".pth", ".tar", ".th")
"""Of files of weights in the layout of their authors, which do not say whose they are."""


def find(spec: str, weights_dir: Path, *, size: int, seed: int) -> Prior:
    """The prior, in eval mode, its parameters frozen.

    Args:
        spec: the name of shipped or of published weights; ARCHITECTURE:FILE, in the layout of its authors;
            FILE.safetensors, in this suite's own; ARCHITECTURE or ARCHITECTURE:SIZE, with random weights.
            ARCHITECTURE is a name, or a dotted path to a class of the user's own.
        weights_dir: the folder that holds `priors/`, `denoisers/`, ... with the published files.
        size: side of the task's images. A prior that follows it has this size where `spec` gives none.
        seed: of random weights.

    Raises:
        InputError: says which file is missing and where it is available, what is wrong with it, or what names there
            are.
    """
    if not spec:
        raise InputError(
            "this method has no shipped prior; give one with --prior, such as a file of `prior train-inverter`."
        )
    architecture, _, detail = spec.partition(":")
    known, published = names.architectures(), names.published()
    if spec in names.shipped():
        return weights.load(names.SHIPPED / f"{spec}.safetensors")
    if spec in published:
        return load_published(spec, weights_dir, size)
    if architecture in known:
        make = known[architecture].load()
    elif spec.endswith(".safetensors") and (Path(spec).is_file() or not is_class(architecture, detail)):
        return weights.load(Path(spec))
    elif not detail and Path(spec).suffix in SUFFIXES:
        raise InputError(f"{spec} does not say which generator it is; write ARCHITECTURE:{spec}.")
    elif "." in architecture:
        make = imported("prior", architecture, Prior)
    else:
        forms = ("ARCHITECTURE:SIZE", "ARCHITECTURE:FILE", "FILE.safetensors")
        raise InputError(unknown("prior", architecture, [*names.shipped(), *published, *known, *forms]))
    if detail and not detail.isdecimal():
        return load_public(make, Path(detail), size)
    prior = untrained(make, architecture, int(detail) if detail else size if make.follows_size else None, seed)
    if architecture in known:
        warnings.warn(f"prior {architecture} is untrained; for trained ones see `prior list`.", Notice, stacklevel=2)
    return prior


def is_class(architecture: str, detail: str) -> bool:
    """Whether ARCHITECTURE:FILE names a class by a dotted path; a path of a file may hold a colon and dots too."""
    return bool(detail) and is_dotted_path(architecture) and all(map(str.isidentifier, architecture.split(".")))


def load_published(name: str, weights_dir: Path, size: int) -> Prior:
    """Published weights by their name, for images of `size` where they take any.

    Raises:
        InputError: the file is missing, has another SHA-256 or does not fit.
    """
    entry = names.published()[name]
    path = entry.path(weights_dir)
    if not path.is_file():
        raise InputError(
            f"prior {name} needs {path.name}, which is not in {path.parent}; put it there, or fix --weights-dir. "
            f"It is available from {entry.source}."
        )
    make = names.architectures()[entry.architecture].load()
    prior = load_public(make, path, size, entry.sha256, **entry.options)
    prior.trained_on = entry.trained_on
    return prior


def load_public(make: type[Prior], path: Path, size: int, sha256: str | None = None, **options: object) -> Prior:
    """A file in the layout of the architecture's authors, its SHA-256 checked where one is known, and its numbers.

    Args:
        size: of the task's images, for an architecture whose weights fit any.
    """
    if path.is_file():
        weights.verify(path, sha256)
    if make.follows_size and "size" in inspect.signature(make.load_public).parameters:
        options["size"] = size
    prior = make.load_public(path, **options)
    for key, tensor in prior.state_dict().items():
        require_finite(tensor, key, path)
    return prior


def untrained(make: type[Prior], architecture: str, size: int | None, seed: int) -> Prior:
    """The prior as its class builds it, with random weights from `seed`; None: its default size."""
    if issubclass(make, Inverter):
        raise InputError(
            f"{architecture} is an inverter, which is of no use untrained; give a file of `prior train-inverter`."
        )
    if size is not None and "size" not in inspect.signature(make).parameters:
        raise InputError(f"{architecture} comes in one size; write {architecture} alone.")
    prior = build(make, seed=seed, **({} if size is None else {"size": size}))
    return prior.eval().requires_grad_(False)
