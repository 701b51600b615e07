"""How many images a victim classifies right."""

from collections.abc import Sequence

import torch
from scipy.stats import binom

from victims.data.base import ImageData
from victims.victim import Gradient, Victim

AT_ONCE = 256  # images
RARE = 0.01


@torch.no_grad()
def classified_right(victim: Victim, theta: Gradient, data: ImageData, indices: Sequence[int]) -> list[bool]:
    """For each of these images whether its class is found; with one logit whether the class is odd or even."""
    right: list[bool] = []
    for start in range(0, len(indices), AT_ONCE):
        images, labels = data.batch(indices[start : start + AT_ONCE])
        logits = victim.logits(theta, victim.normalize(images.to(victim.mean))).cpu()
        parity = logits.shape[1] == 1
        found, truth = (logits[:, 0] > 0, labels % 2) if parity else (logits.argmax(1), labels)
        right += (found == truth).tolist()
    return right


def like_guessing(right: int, n: int, classes: int) -> bool:
    """Whether guessing among the classes is right as often in more than 1 % of cases: a binomial test.

    False where there are too few images to tell.
    """
    chance = 1 / classes
    return bool(binom.sf(right - 1, n, chance) > RARE >= binom.sf(n - 1, n, chance))
