"""How many images a victim classifies right."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from scipy.stats import binom

from benchmark.device import best_device
from benchmark.setting import Setting
from victims.data.base import ImageData
from victims.victim import Gradient, Victim

AT_ONCE = 256  # images
RARE = 0.01
TESTED = 1000  # images


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


def victim_accuracy(config: Setting) -> float | None:
    """The share of about 1000 test images that the trained victim classifies right; None where it was not trained."""
    if not config.steps_trained():
        return None
    data = config.make_data("test")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has been said of the run's own
        victim = replace(config, victim_mode="eval", rounds=1, between=0).make_victim(data)
    victim.to(best_device())
    right = classified_right(victim, victim.parameters, data, data.sample(TESTED))
    return sum(right) / len(right)


def like_guessing(right: int, n: int, classes: int) -> bool:
    """Whether guessing among the classes is right as often in more than 1 % of cases: a binomial test.

    False where there are too few images to tell.
    """
    chance = 1 / classes
    return bool(binom.sf(right - 1, n, chance) > RARE >= binom.sf(n - 1, n, chance))
