"""The state of a training beside the file it will write, so that the same command goes on where it was stopped."""

from pathlib import Path
from typing import Any

import torch

from victims.checkpoints import tensors
from victims.errors import InputError


def save(path: Path, identity: str, state: dict[str, Any]) -> None:
    """At once: whoever is stopped leaves the state before or this one, never half of it."""
    partial = path.with_suffix(".partial")
    torch.save({"identity": identity, **state}, partial)
    partial.replace(path)


def load(path: Path, identity: str) -> dict[str, Any]:
    """What was saved; nothing where nothing was.

    Raises:
        InputError: it is the state of a training of another identity, or no state.
    """
    if not path.is_file():
        return {}
    state = tensors(path)
    if state.get("identity") != identity:
        raise InputError(
            f"{path} is the state of another training ({state.get('identity')}); remove it, or choose another output."
        )
    return state
