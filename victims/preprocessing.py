"""What a client does to pixels before its model, and who decides it."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from victims.errors import InputError, Notice


@dataclass(frozen=True)
class Preprocessing:
    """Images in [0, 1] -> (images - mean) / std, by channel.

    Attributes:
        mean, std: one number per channel. A model of inputs in 0..255 has mean 0 and std 1/255.
        source: whose they are, in words.

    Raises:
        InputError: a number is not finite, or a std not above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str = "as given"

    def __post_init__(self) -> None:
        for name, values in {"mean": self.mean, "std": self.std}.items():
            if not all(map(math.isfinite, values)):
                raise InputError(f"{name} is {text(values)}; give finite numbers.")
        if min(self.std) <= 0:
            raise InputError(f"std is {text(self.std)}; give numbers above 0.")

    def of_channels(self, channels: int) -> "Preprocessing":
        """The same with one number for each channel, where there is one for all.

        Raises:
            InputError: there are neither one nor as many as channels.
        """
        for name, values in {"mean": self.mean, "std": self.std}.items():
            if len(values) not in (1, channels):
                raise InputError(
                    f"{name} has {len(values)} numbers, {self.source}, and images have {channels} channels; give "
                    "--mean and --std, one number or one for each channel."
                )
        mean, std = (values * (channels if len(values) == 1 else 1) for values in (self.mean, self.std))
        return Preprocessing(mean, std, self.source)

    def tensors(self, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """Mean and std, (C, 1, 1) each."""
        mean, std = (torch.tensor(values, dtype=dtype)[:, None, None] for values in (self.mean, self.std))
        return mean, std

    def normalize(self, pixels: Tensor) -> Tensor:
        """Images (..., C, H, W) in [0, 1] as they enter the model."""
        mean, std = (t.to(pixels.device) for t in self.tensors(pixels.dtype))
        return (pixels - mean) / std


def text(values: tuple[float, ...]) -> str:
    """As an option takes them: one number if all channels have the same."""
    return ",".join(map(repr, values[:1] if len(set(values)) == 1 else values))


def given(mean: str | None, std: str | None) -> Preprocessing | None:
    """What options say: one number for all channels, or one for each with commas; None if they say nothing.

    Raises:
        InputError: there is only one of them, or one is no list of numbers.
    """
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        missing = "mean" if mean is None else "std"
        raise InputError(f"there is no --{missing}; give both: --mean 0 --std 1 leaves images in [0, 1] as they are.")
    return Preprocessing(numbers("mean", mean), numbers("std", std))


def numbers(name: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in option.split(","))
    except ValueError:
        raise InputError(f"{name} is '{option}'; give one number, or one for each channel with commas.") from None


def declared(model: nn.Module) -> Preprocessing | None:
    """What a model says by its attributes `mean` and `std`, numbers for all or for each channel; None if nothing.

    A Notice where they are tensors: these are most likely a part of the model's own forward.
    """
    found = {name: getattr(model, name, None) for name in ("mean", "std")}
    name = type(model).__name__
    if all(isinstance(value, Tensor) for value in found.values()):
        warnings.warn(
            f"{name} has tensors mean and std; if it normalizes by them itself, give --mean 0 --std 1, else give them "
            "as --mean and --std.",
            Notice,
            stacklevel=2,
        )
    mean, std = (plain_numbers(value) for value in found.values())
    return Preprocessing(mean, std, f"the attributes of {name}") if mean and std else None


def plain_numbers(value: Any) -> tuple[float, ...] | None:
    """A number, or a tuple or list of some, as floats; None for anything else."""
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
    return Preprocessing(tuple(transforms.mean), tuple(transforms.std), f"torchvision's weights of {name}")


def of_model(model: nn.Module, spec: str, trained: bool) -> Preprocessing | None:
    """A model's own preprocessing; None if it has none.

    That of its attributes; else of timm or torchvision, if the model is theirs and does not have random weights.

    Args:
        spec: the name of the victim.
        trained: whether weights are loaded into it. Those of a user's own model are its own anyway.
    """
    library, colon, name = spec.partition(":")
    if found := declared(model):
        return found
    if library == "torchvision" and trained:
        return of_torchvision(name)
    return of_timm(model) if trained or ("." in spec and not colon) else None
