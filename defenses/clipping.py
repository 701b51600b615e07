"""Gradient clipping: GIFD supplement F (1), whose text clips every tensor and whose code the whole update."""

import math
from typing import Literal

import torch
from torch import Tensor

from defenses.base import Defense
from victims.errors import InputError
from victims.observation import Transform
from victims.victim import Gradient, Victim

SHARED = 1 - 1e-5  # norms clipped to one bound differ by rounding, in float32 by some 1e-7 of it
TINY = 1e-30  # a dummy gradient whose shorter tensors are all zero has no length to bring to another


class Clipping(Defense):
    """What is longer than the bound is shortened to it: g min(c / |g|, 1) in l2 norms."""

    def __init__(self, bound: float, by: Literal["layer", "global"] = "layer") -> None:
        """
        Args:
            bound: c, in units of the update; above 0.
            by: whether every tensor is held against it, or the whole update.

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
        """The dummy gradient brought to the received length, then every tensor clipped to the largest received norm c.

        Whether the bound held for each tensor or for all together is not known, and need not be. A tensor that
        arrived shorter than c was left alone (bound for each), or shortened by the factor that all were shortened by
        (for all). So the dummy times N / |dummy|, both norms over these tensors alone, is the client's update up to
        clipping, and c clips: it is the bound that each tensor had, or the norm of a tensor that keeps it. At the
        private batch the result is the received update in both cases. Where all tensors share c, none tells the
        scale, and it is left as it is.
        """
        norms = {name: squares(g).sqrt() for name, g in received.items()}
        c = torch.stack(list(norms.values())).amax(0)  # (R,)
        shorter = {name: norm < SHARED * c for name, norm in norms.items()}
        N2 = sum(norm.square().where(shorter[name], 0) for name, norm in norms.items())

        def transform(gradient: Gradient) -> Gradient:
            dummy2 = {name: squares(g) for name, g in gradient.items()}
            rest2 = sum(norm2.where(shorter[name], 0) for name, norm2 in dummy2.items())
            known = (N2 > TINY) & (rest2 > TINY)
            scale2 = N2.where(known, 1) / rest2.where(known, 1)
            clipped = {}
            for name, g in gradient.items():
                # s min(c / s|g|, 1) of squares, because the root's slope at |g| = 0 is infinite
                factor = c * (scale2 / (scale2 * dummy2[name]).clamp_min(TINY).maximum(c.square())).sqrt()
                clipped[name] = g * factor.view(-1, *[1] * (g.ndim - 1))
            return clipped

        return transform


def squares(g: Tensor) -> Tensor:
    """(R, *shape) -> (R,): the squared l2 norms."""
    return g.reshape(len(g), -1).square().sum(1)
