"""Images with another number of channels than those of their data set: color in shades of gray, or gray as color."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from victims.data.base import ImageData
from victims.errors import InputError

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R 601-2, as Pillow's mode L


def in_channels(data: ImageData, channels: int | None) -> ImageData:
    """The data set with images of this many channels; None takes them as they are.

    Raises:
        InputError: it is neither 1 nor 3, or its images have another number.
    """
    if channels is None:
        return data
    if channels not in (1, 3):
        raise InputError(f"channels is {channels}; give 1 for shades of gray, or 3 for color.")
    own = data.image_shape[0]
    if channels == own:
        return data
    if own not in (1, 3):
        raise InputError(
            f"{data.name} has images of {own} channels, which are neither gray nor color; leave --channels."
        )
    return Recolored(data, channels)


class Recolored(ImageData):
    """The images of another data set in shades of gray (1 channel), or its gray images as color (3)."""

    def __init__(self, data: ImageData, channels: int) -> None:
        self.data, self.channels = data, channels
        self.name, self.split, self.splits, self.classes = data.name, data.split, data.splits, data.classes
        self.ids, self.labels, self.key = data.ids, data.labels, data.key  # type: ignore[method-assign]
        self.mean, self.std = (self.of_constants(values) for values in (data.mean, data.std))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.data[index]
        return recolored(image, self.channels), label

    def split_digest(self) -> str:
        return self.data.split_digest()

    def stamp(self) -> str:
        return self.data.stamp()

    def augmented(self, count: int, generator: torch.Generator, without: Collection[int] = ()) -> tuple[Tensor, Tensor]:
        images, labels = self.data.augmented(count, generator, without)
        return recolored(images, self.channels), labels

    def of_constants(self, values: Sequence[float]) -> tuple[float, ...]:
        """The mean of gray is that of the colors, weighted; of the standard deviations this is an upper bound."""
        if self.channels == 3:
            return tuple(values) * 3
        return (sum(weight * value for weight, value in zip(LUMA, values, strict=True)),)


def recolored(images: Tensor, channels: int) -> Tensor:
    """(..., C, H, W) in [0, 1] with C 3 -> 1 or 1 -> 3; multiples of 1/255 stay such."""
    if channels == 3:
        return images.expand(*images.shape[:-3], 3, *images.shape[-2:])
    luma = (images * images.new_tensor(LUMA)[:, None, None]).sum(-3, keepdim=True)
    return (luma * 255).round() / 255
