"""Weights of priors in this suite's own layout: safetensors files that describe themselves.

The file's metadata holds `prior` (the name of the architecture), `options` (its constructor arguments, JSON),
`trained_on` and `command`, and `training_seconds` where they are known. A shipped file `<name>.safetensors` has a
record `<name>.json` beside it with its SHA-256; weights of others may have such a record too.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from priors.base import Prior
from priors.names import architectures, shipped
from victims.checkpoints import expected, require_numbers, sha256, write
from victims.errors import InputError


def save(prior: Prior, path: Path, *, architecture: str, options: Mapping[str, Any], command: str) -> None:
    """Write the weights with their metadata, and `<name>.json` with the file's SHA-256 beside them."""
    about = {
        "prior": architecture,
        "options": json.dumps(dict(options)),
        "trained_on": prior.trained_on,
        "command": command,
    }
    if prior.training_seconds is not None:
        about["training_seconds"] = str(prior.training_seconds)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous().cpu() for name, tensor in prior.state_dict().items()}
    whole = to_bytes(tensors, metadata=about)
    record = json.dumps({**about, "sha256": hashlib.sha256(whole).hexdigest()}, indent=2) + "\n"
    write({path: whole, path.with_suffix(".json"): record.encode()})


def check_name(path: Path, command: str) -> None:
    """Refuse to write weights into a file of another kind, before they are trained.

    Raises:
        InputError: it is no .safetensors file.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"{command} writes a .safetensors file, not {path}.")


def load(path: Path) -> Prior:
    """The prior in eval mode, its parameters frozen.

    Raises:
        InputError: no file, not safetensors, not a prior of this suite, other tensors than the architecture's,
            numbers that are no weights, or another SHA-256 than recorded beside the file.
    """
    if not path.is_file():
        names = ", ".join(shipped())
        raise InputError(f"no weights at {path}; give a .safetensors file{f', or one of: {names}' if names else ''}.")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}); get it again.") from None
    known = architectures()
    if about.get("prior") not in known:
        raise InputError(
            f"{path} is not a prior of this suite: its metadata names '{about.get('prior')}', "
            f"known are {', '.join(known)}."
        )
    verify(path)
    make = known[about["prior"]].load()
    with expected(f"a file whose metadata fit '{about['prior']}'", path):
        options, trained_on = json.loads(about["options"]), about["trained_on"]
        seconds = float(about["training_seconds"]) if "training_seconds" in about else None
        with torch.device("meta"):  # no memory is taken for a size that the file does not have
            outline = make(**options).requires_grad_(False)
    try:
        outline.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise InputError(f"{path} does not fit the architecture '{about['prior']}': {first}") from None
    prior = make(**options)
    for key, own in prior.state_dict().items():
        require_numbers(tensors[key], own, key, path, about["prior"])
    prior.load_state_dict(tensors)
    prior.trained_on, prior.training_seconds = trained_on, seconds
    return prior.eval().requires_grad_(False)


def verify(path: Path, expected: str | None = None) -> None:
    """Compare the file's SHA-256 with `expected`, or else with that of the `.json` beside it, where there is one.

    Raises:
        InputError: the SHA-256 differs, or the `.json` has none.
    """
    record, where = path.with_suffix(".json"), "known of it"
    if expected is None and record.is_file():
        try:
            expected, where = json.loads(record.read_text())["sha256"], f"recorded in {record.name}"
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{record.name} beside {path} is no record of it (no sha256); get both again.") from None
    if expected is not None and expected != sha256(path):
        raise InputError(f"{path} does not have the SHA-256 {where}; get it again.")
