"""Files of public weights in the layout of their authors: read without running code, refused in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors.torch import load_file

from victims.errors import InputError


def tensors(path: Path) -> Any:
    """What a file holds, on the CPU: `.safetensors`, else what `torch.save` wrote; code in it is never run.

    Raises:
        InputError: no file, or one that is not of plain tensors.
    """
    if not path.is_file():
        raise InputError(f"no weights at {path}; put them there, or mend the path.")
    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # what is no such file makes its reader fail in any way
        raise InputError(f"{path} is not a file of plain tensors ({type(error).__name__}); get it again.") from None


@contextmanager
def expected(what: str, path: Path) -> Iterator[None]:
    """Tensors of a foreign layout fail in as many ways as there are files; here they are all one line.

    Raises:
        InputError: in place of any error.
    """
    try:
        yield
    except Exception as error:
        reason = shorten(f"{type(error).__name__}: {error}", 160)
        raise InputError(f"{path} is not {what} ({reason}); give its weights.") from None
