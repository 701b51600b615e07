"""The preprocessing that belongs to a model: what it says, or what its library says."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torchvision
from torch import Tensor, nn

from victims.errors import InputError
from victims.names import is_dotted_path
from victims.preprocessing import Preprocessing

DECLARED = ("input_mean", "input_std")
UNCLEAR = ("mean", "std")
CENTERED = ("googlenet", "inception_v3")  # of torchvision


def declared(model: nn.Module) -> Preprocessing | None:
    """What a model says by `input_mean` and `input_std`, numbers for all channels or for each; None if nothing."""
    found = numbers_of(model, DECLARED)
    return Preprocessing(*found, f"the attributes of {type(model).__name__}") if found else None


def refuse_unclear(model: nn.Module) -> None:
    """Refuse to guess where a model, or a part of it, has numbers `mean` and `std`: it may normalize by itself, or not.

    Raises:
        InputError: names the part.
    """
    for name, part in model.named_modules():
        if numbers_of(part, UNCLEAR):
            where = f"'{name}' ({type(part).__name__}) of the model" if name else f"the model, {type(part).__name__},"
            raise InputError(
                f"{where} has a mean and a std; if the model normalizes by itself, give --mean 0 --std 1 or set "
                "input_mean = 0 and input_std = 1 on it; else give what the client does before the model."
            )


def numbers_of(module: nn.Module, names: tuple[str, str]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The numbers that two attributes of a layer hold; None unless both do."""
    mean, std = (plain_numbers(getattr(module, name, None)) for name in names)
    return (mean, std) if mean and std else None


def plain_numbers(value: Any) -> tuple[float, ...] | None:
    """Numbers as floats: one, several, or a tensor or array with one for all or for each channel; None for all else."""
    if isinstance(value, Tensor | np.ndarray):
        value = value.flatten().tolist() if value.squeeze().ndim < 2 else ()
    values = value if isinstance(value, tuple | list) else (value,)
    return tuple(map(float, values)) if values and all(isinstance(v, Real) for v in values) else None


def of_timm(model: nn.Module) -> Preprocessing | None:
    """That of timm's weights of a model; None if it is not timm's."""
    config: Any = getattr(model, "pretrained_cfg", None)
    mean, std = (plain_numbers(config.get(key)) if isinstance(config, Mapping) else None for key in ("mean", "std"))
    return Preprocessing(mean, std, f"timm's configuration of {type(model).__name__}") if mean and std else None


def of_torchvision(name: str) -> Preprocessing | None:
    """That of torchvision's weights of a model; None if it has none. Nothing is downloaded."""
    try:
        transforms: Any = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    except (ValueError, AttributeError):
        return None
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if name in CENTERED:  # with its weights torchvision's own model turns ImageNet's numbers into these, and here not
        mean = std = (0.5,) * len(mean)
    return Preprocessing(mean, std, f"torchvision's weights of {name}")


def of_model(model: nn.Module, spec: str, *, trained: bool) -> Preprocessing | None:
    """A model's own preprocessing; None if it has none.

    What `declared` finds; else that of timm or torchvision, if the model is theirs and does not have random weights.

    Args:
        spec: the name of the victim.
        trained: whether weights are loaded into it. Those of a user's own model are its own anyway.

    Raises:
        InputError: a user's own model leaves it unclear, see `refuse_unclear`.
    """
    library, _, name = spec.partition(":")
    if found := declared(model):
        return found
    if is_dotted_path(spec):
        refuse_unclear(model)
    if library == "torchvision" and trained:
        return of_torchvision(name)
    return of_timm(model) if trained or is_dotted_path(spec) else None
