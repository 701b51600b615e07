"""What controls are made of: other images for a shuffled update, and the mean image."""

import torch
from torch import Tensor

from benchmark.tasks.batches import Batch
from victims.data.base import ImageData
from victims.errors import InputError
from victims.seeds import seed_of

COPY_DB = 30.0
"""PSNR from which on two images are copies: JPEG at a usual quality has it, two pictures of a class hardly ever."""


def strangers(data: ImageData, batch: Batch) -> tuple[int, ...]:
    """For every image of the batch another one of the same class, or of any class where there is none.

    The update of these tells the attacker nothing about the batch that the labels do not tell. So none of them is a
    copy of an image of the batch, see `alike`.

    Raises:
        InputError: the data set has too few other images.
    """
    generator = torch.Generator().manual_seed(seed_of("strangers", batch.task))
    truths, _ = data.batch(batch.indices)
    chosen: list[int] = []
    for index in batch.indices:
        others = [i for i in range(len(data)) if i not in batch.indices and i not in chosen]
        own = [i for i in others if data.labels[i] == data.labels[index]] or others
        first = int(torch.randint(max(1, len(own)), (1,), generator=generator))
        in_turn = dict.fromkeys([*own[first:], *own[:first], *others])
        fit = (i for i in in_turn if data.readable([i]) and not alike(data[i][0], truths).any())
        stranger = next(fit, None)
        if stranger is None:
            raise InputError(
                "the shuffled-update control needs, for every image of a batch, another one that can be read and is no "
                f"copy of those of the batch (PSNR {COPY_DB:g} dB or more); lower --batch, or give other images."
            )
        chosen.append(stranger)
    return tuple(chosen)


def alike(image: Tensor, truths: Tensor, db: float = COPY_DB) -> Tensor:
    """Whether an image (C, H, W) in [0, 1] is a copy, or nearly one, of each of the truths (B, C, H, W): (B,) bool.

    Args:
        db: their PSNR from which on it is.
    """
    return (image - truths).square().flatten(1).mean(1) <= 10 ** (-db / 10)


def mean_image(data: ImageData) -> Tensor:
    """(C, H, W): the pixel-wise mean of evenly spaced images: 1024 to almost twice as many, or all of fewer."""
    images, _ = data.batch(data.sample(1024))
    return images.mean(0)
