"""Stochastic quantization: Alistarh, Grubic, Li, Tomioka, Vojnovic, QSGD, NeurIPS 2017, section 3.1."""

import torch
from torch import Tensor

from defenses.base import Defense
from victims.errors import InputError
from victims.observation import Transform
from victims.victim import Gradient, Victim


class Quantization(Defense):
    """Every entry becomes a multiple of |g| / s of its tensor, rounded up or down at random without bias (QSGD).

    sent_i = |g| sign(g_i) k_i / s, where k_i is one of the two whole numbers next to s |g_i| / |g| and its mean is
    that, and |g| is the tensor's l2 norm.
    """

    examples = ("quantization:16", "quantization:4")

    def __init__(self, levels: int) -> None:
        """
        Args:
            levels: s, magnitudes above zero that an entry can have; 1 or more.

        Raises:
            InputError: there are less than 1.
        """
        if levels < 1:
            raise InputError(f"quantization takes 1 level or more, not {levels}.")
        self.levels = levels

    def __call__(self, update: Gradient, generator: torch.Generator) -> Gradient:
        return {name: self._rounded(g, generator) for name, g in update.items()}

    def _rounded(self, g: Tensor, generator: torch.Generator) -> Tensor:
        step = g.norm() / self.levels
        exact = (g.abs() / step).nan_to_num(0)  # a tensor of zeros stays one
        chance = torch.rand(g.shape, generator=generator, dtype=g.dtype, device=generator.device).to(g.device)
        return g.sign() * (exact.floor() + (chance < exact.frac())) * step

    @staticmethod
    def estimate(received: Gradient, victim: Victim) -> Transform:
        """The mean over the rounding, which is the dummy gradient itself.

        The grid's step is visible in what was received. But with enough levels to reconstruct anything, rounding the
        dummy gradient to the grid reconstructs less: most entries are far below one step, so the few of them that were
        rounded up at random would be matched by zeros.
        """
        return lambda gradient: gradient
