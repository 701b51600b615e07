"""All images of a folder but one: their mean is a guess at that one, and one of them may be almost it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from benchmark.audit.looks import Looks
from benchmark.scoring.metrics import score
from benchmark.tasks.capture import alike

NEAR_COPY_DB = 20.0  # PSNR of two images; from COPY_DB on they are copies, which no control is made of


class Others(NamedTuple):
    """All images of the folder but one and its copies.

    Attributes:
        scores: of their mean, as a reconstruction of that one.
        near_copy: whether one of them, of which controls are made, is almost that one.
    """

    scores: dict[str, float | None]
    near_copy: bool


def others_of(looks: Looks, ids: Sequence[str]) -> dict[str, Others]:
    """By image; the folder is read once."""
    truths = torch.stack([looks.truth(image) for image in ids])
    total = torch.zeros_like(truths, dtype=torch.float64)
    count, near = torch.zeros(len(ids)), torch.zeros(len(ids), dtype=torch.bool)
    for _, image in looks.data.each(range(len(looks.data))):
        other = ~alike(image, truths)
        total[other] += image
        count += other
        near |= other & alike(image, truths, NEAR_COPY_DB)
    means = (total / count.view(-1, 1, 1, 1)).float()
    found = {}
    for image_id, mean, truth, near_copy in zip(ids, means, truths, near.tolist(), strict=True):
        _, scores = score(mean[None], truth[None], squeeze=looks.lpips)
        found[image_id] = Others({metric: values[0] for metric, values in scores.items()}, near_copy)
    return found
