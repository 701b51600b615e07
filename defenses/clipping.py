"""Gradient clipping: GIFD supplement F (1). Its text clips every tensor, its code the whole update."""

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import ClassVar, Literal

import torch
from torch import Tensor

from defenses.base import Defense
from victims.errors import InputError
from victims.observation import Estimate, Transform
from victims.rounds import by_round
from victims.victim import Gradient, Victim

TINY = 1e-30  # a tensor of zeros stays one, with finite gradients


def by_bound(received: Gradient, victim: Victim) -> Transform:
    """The whole dummy gradient is clipped to the norm of the whole received update, as if that were c (GGL)."""
    bounds = [whole(part).sqrt() for part in by_round(victim, received)]
    return lambda gradient: clip(gradient, bounds, victim)


class Clipping(Defense):
    """Tensors (or the update) longer than a bound are shortened to it: g min(c / |g|, 1) in l2 norms."""

    examples = ("clipping:0.1", "clipping:0.1:global")
    surrogates: ClassVar[Mapping[str, Estimate]] = {"parameter": by_bound}

    def __init__(self, bound: float, by: Literal["layer", "global"] = "layer") -> None:
        """
        Args:
            bound: c, in units of the update; above 0.
            by: whether every tensor is compared with it, or the whole update.

        Raises:
            InputError: the bound is not above 0, or not finite.
        """
        if not 0 < bound < math.inf:
            raise InputError(f"clipping takes a bound above 0, such as 4, not {bound}.")
        self.bound, self.by = bound, by

    def __call__(self, update: Gradient, generator: torch.Generator) -> Gradient:
        norms = {name: g.norm() for name, g in update.items()}
        if self.by == "global":
            norms = dict.fromkeys(norms, torch.stack(list(norms.values())).norm())
        return {name: g * (self.bound / norms[name]).clamp_max(1) for name, g in update.items()}

    @staticmethod
    def estimate(received: Gradient, victim: Victim) -> Transform:
        """Every tensor of the dummy gradient is clipped to the norm of the received tensor (GIFD supplement F).

        The attacker does not know whether the bound was for each tensor or for all together, and need not know. At the
        private batch the result is the received update in both cases: clipping keeps the direction of a tensor, and a
        tensor that was not clipped has the norm that was received. Several tensors with the same norm would reveal the
        bound, but not after noise or another defense, which change the norms.
        """
        norms = {name: squares(g).sqrt() for name, g in received.items()}
        return lambda gradient: {name: scaled(g, shortening(squares(g), norms[name])) for name, g in gradient.items()}


def clip(gradient: Gradient, bounds: Sequence[Tensor], victim: Victim) -> Gradient:
    """Every instance's gradient (R, *shape) shortened to its bound in l2 norm, each round by itself.

    Args:
        bounds: (R,) or () for each round, 0 or more.
    """
    tensors = []
    for part, c in zip(by_round(victim, gradient), bounds, strict=True):
        factor = shortening(whole(part), c)
        tensors += [scaled(g, factor) for g in part.values()]
    return dict(zip(gradient, tensors, strict=True))  # round after round, which is the order of the parameters


def squares(g: Tensor) -> Tensor:
    """(R, *shape) -> (R,): the squared l2 norms."""
    return g.reshape(len(g), -1).square().sum(1)


def whole(update: Gradient) -> Tensor:
    """(R,): the squared l2 norms over all tensors."""
    return reduce(add, map(squares, update.values()))


def shortening(square: Tensor, bound: Tensor) -> Tensor:
    """(R,): min(bound / |g|, 1), given the squared norms."""
    return bound / square.maximum(bound.square().clamp_min(TINY)).sqrt()  # no root is taken at zero


def scaled(g: Tensor, factor: Tensor) -> Tensor:
    """(R, *shape) times (R,)."""
    return g * factor.view(-1, *[1] * (g.ndim - 1))
