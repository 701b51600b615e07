"""What a client does to pixels before its model."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from victims.errors import InputError


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
