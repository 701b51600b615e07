"""Gradient sparsification: GIAS section 5.2, GIFD supplement F (2)."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor

from defenses.base import Defense
from victims.errors import InputError
from victims.observation import Estimate, Transform
from victims.victim import Gradient, Victim


def by_rate(received: Gradient, victim: Victim) -> Transform:
    """The dummy gradient is sparsified too, at the share of all entries that were received as zero (GGL, GIFD).

    Entries are dropped below the percentile of every tensor, as numpy has it: of n, the rate (n - 1) smallest, rounded
    up. This is weaker than masks at the positions of the zeros: at the private batch it is the same but for rounding,
    elsewhere other entries are compared.
    """
    zeros = torch.stack([(g == 0).reshape(len(g), -1).sum(1) for g in received.values()]).sum(0)
    entries = sum(g[0].numel() for g in received.values())
    rates = [Fraction(count, entries) for count in zeros.tolist()]  # by instance
    dropped = {name: [math.ceil(rate * (g[0].numel() - 1)) for rate in rates] for name, g in received.items()}

    def largest(g: Tensor, dropped: list[int]) -> Tensor:
        sizes = g.detach().abs().reshape(len(g), -1)
        least = torch.stack([each.kthvalue(count + 1).values for each, count in zip(sizes, dropped, strict=True)])
        return torch.where((sizes < least[:, None]).view_as(g), 0, g)

    return lambda gradient: {name: largest(g, dropped[name]) for name, g in gradient.items()}


class Sparsification(Defense):
    """Only the largest entries of every tensor are sent; the others are zero."""

    examples = ("sparsification:0.5", "sparsification:0.9")
    surrogates: ClassVar[Mapping[str, Estimate]] = {"parameter": by_rate}

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
        """Entries that were received as zero are masked in the dummy gradient too (GIAS)."""
        masks = {name: g != 0 for name, g in received.items()}
        return lambda gradient: {name: torch.where(masks[name], g, 0) for name, g in gradient.items()}


def keep_largest(tensor: Tensor, count: int) -> Tensor:
    """The `count` entries of largest magnitude, the others zero; same shape."""
    kept = torch.zeros_like(tensor).flatten()
    index = tensor.abs().flatten().topk(count, sorted=False).indices  # sorting takes most of the time
    kept[index] = tensor.flatten()[index]
    return kept.view_as(tensor)
