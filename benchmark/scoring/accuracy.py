"""How many images a victim classifies right."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from math import ceil

import torch
from scipy.stats import binom

from benchmark.device import best_device
from benchmark.setting import Setting
from victims.batch_norm import batch_norms
from victims.data.base import ImageData
from victims.victim import Gradient, Victim

AT_ONCE = 256  # images
RARE = 0.01
TESTED = 1000  # images


@torch.no_grad()
def classified_right(victim: Victim, theta: Gradient, data: ImageData, indices: Sequence[int]) -> list[bool]:
    """For each of these images whether its class is found; with one logit whether the class is odd or even.

    NaN finds none. Where batch norm normalizes by the batch, as in eval mode where it keeps no running statistics,
    batches are of equal size and of images in a random order, always the same: data sets are often ordered by class.
    """
    n, right = len(indices), torch.zeros(len(indices), dtype=torch.bool)
    parts = torch.arange(n).split(AT_ONCE)
    if any(layer.training or layer.running_mean is None for layer in batch_norms(victim.model).values()):
        parts = torch.randperm(n, generator=torch.Generator().manual_seed(0)).tensor_split(ceil(n / AT_ONCE))
    for places in parts:
        images, labels = data.batch([indices[place] for place in places.tolist()])
        logits = victim.logits(theta, victim.normalize(images.to(victim.mean))).cpu()
        parity = logits.shape[1] == 1
        found, truth = (logits[:, 0] > 0, labels % 2) if parity else (logits.argmax(1), labels)
        right[places] = (found == truth) & ~logits.isnan().any(1)
    return right.tolist()


@torch.no_grad()
def told_apart(victim: Victim, data: ImageData, indices: Sequence[int]) -> int:
    """How many classes `classified_right` tells apart, tried on these images: odd and even with one logit, else all.

    Guessing finds one in so many.
    """
    images, _ = data.batch(indices)
    logits = victim.logits(victim.parameters, victim.normalize(images.to(victim.mean)))
    return 2 if logits.shape[1] == 1 else len(data.classes)


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
