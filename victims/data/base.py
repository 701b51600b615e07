"""What every image data set provides."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset


class ImageData(Dataset[tuple[Tensor, int]], ABC):
    """Labelled images of one split: item i is (image (C, H, W) in [0, 1], label).

    A subclass is built as `Data(split=..., size=...)`, with `data_dir=...` where its constructor takes one, and
    sets the attributes below. Its images are whole multiples of 1/255.

    Attributes:
        classes: name of every class; a label is an index into it.
        mean, std: per channel, of the images in [0, 1]; public preprocessing constants.
        ids: a stable name for every image of the split, the same in every run and on every machine.
        labels: (N,) integer labels.
    """

    splits: Sequence[str] = ("train", "tune", "test")
    classes: Sequence[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ids: list[str]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The images (B, C, H, W) in [0, 1] and labels (B,) of `indices`."""
        images, labels = zip(*(self[i] for i in indices), strict=True)
        return torch.stack(images), torch.tensor(labels)

    def augmented(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """For training a prior: images (count, C, H, W) in [0, 1] drawn at random, half of them mirrored; labels."""
        images, labels = self.batch(torch.randint(len(self), (count,), generator=generator).tolist())
        mirror = torch.rand(count, generator=generator) < 0.5
        return torch.where(mirror[:, None, None, None], images.flip(-1), images), labels
