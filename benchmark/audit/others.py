"""All images of a folder but one: their mean is a guess at that one, and one of them may be almost it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from benchmark.audit.looks import Looks, pixels
from benchmark.audit.verdicts import Shown
from benchmark.scoring.metrics import mse
from benchmark.scoring.score import score
from benchmark.tasks.controls import alike

NEAR_COPY_DB = 20.0  # PSNR of two images; from COPY_DB on they are copies, which no control is made of


class Others(NamedTuple):
    """All images of the folder but one and its copies.

    Attributes:
        scores: of their mean, as a reconstruction of that one.
        near_copy: whether one of them, of which controls are made, is almost that one.
        copied: whether that one has copies in the folder.
    """

    scores: dict[str, float | None]
    near_copy: bool
    copied: bool


def others_of(looks: Looks, ids: Sequence[str]) -> dict[str, Others]:
    """By image; the folder is read once."""
    truths = torch.stack([looks.truth(image) for image in ids])
    total = torch.zeros_like(truths, dtype=torch.float64)
    count, copies = torch.zeros(len(ids)), torch.zeros(len(ids))
    near = torch.zeros(len(ids), dtype=torch.bool)
    for _, image in looks.data.each(range(len(looks.data))):
        other = ~alike(image, truths)
        total[other] += image
        count += other
        copies += ~other
        near |= other & alike(image, truths, NEAR_COPY_DB)
    means = (total / count.view(-1, 1, 1, 1)).float()
    found = {}
    for place, image_id in enumerate(ids):
        _, scores = score(means[place, None], truths[place, None], squeeze=looks.lpips)
        first = {metric: values[0] for metric, values in scores.items()}
        found[image_id] = Others(first, bool(near[place]), bool(copies[place] > 1))
    return found


def copies_aside(looks: Looks, image: str, results: Sequence[Shown]) -> list[Shown]:
    """Results for an image that has copies in the folder: one that is nearer to a copy than to the image is of it too.

    A run's `iip` takes such a copy for another image.
    """
    truth = looks.truth(image)
    rebuilt = torch.stack([pixels(result.picture) for result in results])
    own, least = mse(rebuilt, truth), torch.full((len(results),), torch.inf)
    for _, other in looks.data.each(range(len(looks.data))):
        if not alike(other, truth[None]):
            least = least.minimum(mse(rebuilt, other))
    nearest = (own <= least).tolist()
    return [
        replace(result, row={**result.row, "iip": 1.0}) if near else result
        for result, near in zip(results, nearest, strict=True)
    ]
