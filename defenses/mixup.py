"""Mixup: Zhang, Cisse, Dauphin, Lopez-Paz, *mixup: Beyond Empirical Risk Minimization*, ICLR 2018."""

import math

import numpy as np
import torch
from torch import Tensor

from defenses.base import Defense
from victims.client import GradientFn
from victims.errors import InputError
from victims.losses.base import check_loss
from victims.observation import Transform
from victims.victim import Gradient, Victim


class Mixup(Defense):
    """In every step each image is mixed with another one of the step, and its label becomes two probabilities.

    As in the authors' code one share, drawn from Beta(alpha, alpha), holds for a whole step. A step on a single image
    has nothing to mix. The attacker may be given the labels of the images, but not how they were mixed.
    """

    examples = ("mixup:0.2", "mixup:1")
    least_images = 2
    changes_images = True

    def __init__(self, alpha: float) -> None:
        """
        Args:
            alpha: above 0; the larger, the nearer the share is to one half.

        Raises:
            InputError: it is not above 0, or not finite.
        """
        if not 0 < alpha < math.inf:
            raise InputError(f"mixup takes an alpha above 0, such as 0.2, not {alpha}.")
        self.alpha = alpha

    def gradient_fn(self, gradient_fn: GradientFn, victim: Victim, generator: torch.Generator) -> GradientFn:
        """
        Raises:
            InputError: the victim's loss takes no probabilities.
        """

        def mixed(theta: Gradient, images: Tensor, labels: Tensor) -> Gradient:
            draws = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
            share = float(draws.beta(self.alpha, self.alpha))
            others = torch.randperm(len(images), generator=generator).to(images.device)
            with torch.no_grad():
                logits = victim.logits(theta, images)
            t = one_hot(labels, logits.shape[-1]).to(images)
            x, t = (share * each + (1 - share) * each[others] for each in (images, t))
            check_loss(victim.criterion, logits, t)
            return gradient_fn(theta, x, t)

        return mixed

    @staticmethod
    def estimate(received: Gradient, victim: Victim) -> Transform:
        """The dummy gradient as it is: what is rebuilt are the mixed images."""
        return lambda gradient: gradient


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Classes (B,) as probabilities (B, K), which (B, K) are already; for one logit odd and even are two classes."""
    if labels.is_floating_point():
        return labels
    return torch.nn.functional.one_hot(labels if classes > 1 else labels % 2, max(2, classes))
