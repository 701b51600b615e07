"""Files of trained weights in the layout of their authors: read without running code, or refused in one line."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from victims.errors import InputError


def tensors(path: Path) -> Any:
    """The content of a file, on the CPU: `.safetensors`, or what `torch.save` wrote. Code in it never runs.

    Raises:
        InputError: no file, or one that is not of plain tensors.
    """
    if not path.is_file():
        raise InputError(f"no weights at {path}; put them there, or fix the path.")
    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # on another kind of file the reader may fail in any way
        raise InputError(f"{path} is not a file of plain tensors ({type(error).__name__}); get it again.") from None


@contextmanager
def expected(what: str, path: Path) -> Iterator[None]:
    """Turn any failure on a file of another layout into one line.

    Raises:
        InputError: in place of any error.
    """
    try:
        yield
    except Exception as error:
        reason = shorten(f"{type(error).__name__}: {error}", 160)
        raise InputError(f"{path} is not {what} ({reason}); give its weights.") from None


def find(name: str, folder: Path) -> Path:
    """The file of a victim's weights: at this path, or else inside the folder.

    Raises:
        InputError: there is none.
    """
    for path in (Path(name), folder / name):
        if path.is_file():
            return path
    raise InputError(f"no victim weights '{name}', here or in {folder}; give random, calibrated or such a file.")


def load(model: nn.Module, path: Path, name: str) -> None:
    """Give a model all of its weights and buffers, in place.

    The file holds a state dict, or has one under `state_dict` or `model`; a prefix `module.` is removed.

    Args:
        name: of the model, for messages.

    Raises:
        InputError: no such file, or of another model, other classes or another image size.
    """
    state = tensors(path)
    with expected(f"a state dict of {name}", path):
        for wrapper in ("state_dict", "model"):
            state = state.get(wrapper, state)
        given = {key.removeprefix("module."): torch.as_tensor(tensor) for key, tensor in state.items()}
    for key, own in model.state_dict().items():
        if key in given and given[key].shape != own.shape:
            raise InputError(
                f"{path} does not fit {name} here: its {key} is {sides(given[key])}, not {sides(own)}; "
                "give weights for the data's classes and --size."
            )
    with expected(f"a state dict of {name}", path):
        model.load_state_dict(given)


def sides(tensor: Tensor) -> str:
    return " x ".join(str(side) for side in tensor.shape) or "one number"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def label(path: Path) -> str:
    """The name of these weights in a row: the file's name and the beginning of its SHA-256."""
    return f"{path.name}:{sha256(path)[:8]}"
