"""Gradient sparsification: GIAS section 5.2, GIFD supplement F (2)."""

from collections.abc import Mapping
from fractions import Fraction

import torch

from defenses.base import Defense
from victims.errors import InputError
from victims.observation import Transform
from victims.victim import Gradient, Victim


class Sparsification(Defense):
    """Only the largest entries of every tensor are sent; the others are zero."""

    examples = ("sparsification:0.5", "sparsification:0.9")

    def __init__(self, rate: float) -> None:
        """
        Args:
            rate: share of every tensor's entries that is set to zero, in [0, 1).

        Raises:
            InputError: the rate is outside [0, 1).
        """
        if not 0 <= rate < 1:
            raise InputError(f"sparsification takes a rate from 0 up to but not including 1, not {rate}.")
        self.rate = rate

    @property
    def axis(self) -> Mapping[str, float]:
        return {"share of the update that is not sent": self.rate}

    def __call__(self, update: Gradient, generator: torch.Generator) -> Gradient:
        rate = Fraction(str(self.rate))  # 0.29 of 100 entries are 29; in floating point they would be 28
        return {name: keep_largest(g, g.numel() - int(rate * g.numel())) for name, g in update.items()}

    @staticmethod
    def estimate(received: Gradient, victim: Victim) -> Transform:
        """Entries that were received as zero are masked in the dummy gradient too."""
        masks = {name: g != 0 for name, g in received.items()}
        return lambda gradient: {name: torch.where(masks[name], g, 0) for name, g in gradient.items()}


def keep_largest(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` entries of largest magnitude, the others zero; same shape."""
    kept = torch.zeros_like(tensor).flatten()
    index = tensor.abs().flatten().topk(count).indices
    kept[index] = tensor.flatten()[index]
    return kept.view_as(tensor)
