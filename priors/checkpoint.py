"""The state of a training, beside the file that it will write, so that the same command resumes it."""

from pathlib import Path
from typing import Any

import torch

from victims.checkpoints import tensors
from victims.errors import InputError


def save(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Write in one step: a killed training leaves the old state or the new one, never a part."""
    partial = path.with_suffix(".partial")
    torch.save({"identity": identity, **state}, partial)
    partial.replace(path)


def load(path: Path, identity: str) -> dict[str, Any]:
    """The saved state; empty if there is none.

    Raises:
        InputError: the file is the state of another training, or no state.
    """
    if not path.is_file():
        return {}
    state = tensors(path)
    if state.get("identity") != identity:
        raise InputError(
            f"{path} is the state of another training ({state.get('identity')}); remove it, or choose another output."
        )
    return state
