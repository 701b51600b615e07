"""Additive noise, Gaussian or Laplacian: Zhu, Liu, Han, Deep Leakage from Gradients, NeurIPS 2019, section 5.1."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from defenses.base import Defense
from victims.errors import InputError
from victims.observation import Transform
from victims.victim import Gradient, Victim


class Noise(Defense):
    """Independent noise of mean zero on every entry of the update."""

    examples = ("noise:0.001", "noise:0.01:laplacian")

    def __init__(self, std: float, kind: Literal["gaussian", "laplacian"] = "gaussian") -> None:
        """
        Args:
            std: the noise's standard deviation, in units of the update's entries; 0 or more.
            kind: its distribution. Laplacian noise of this deviation has the scale std / sqrt(2).

        Raises:
            InputError: the deviation is negative or not finite.
        """
        if not 0 <= std < math.inf:
            raise InputError(f"noise takes a standard deviation from 0 up, such as 0.01, not {std}.")
        self.std, self.kind = std, kind

    @property
    def axis(self) -> Mapping[str, float]:
        return {f"standard deviation of {self.kind.capitalize()} noise": self.std}

    def __call__(self, update: Gradient, generator: torch.Generator) -> Gradient:
        return {name: g + self.std * self._draw(g, generator).to(g.device) for name, g in update.items()}

    def _draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Noise of variance 1; on the generator's device, so that every device gets the same."""
        one, other = (torch.empty(like.shape, dtype=like.dtype, device=generator.device) for _ in range(2))
        if self.kind == "gaussian":
            return one.normal_(generator=generator)
        # The difference of two exponentials of mean 1 is Laplacian, of variance 2.
        return (one.exponential_(generator=generator) - other.exponential_(generator=generator)) / math.sqrt(2)

    @staticmethod
    def estimate(received: Gradient, victim: Victim) -> Transform:
        """The mean over the noise, which is the dummy gradient itself.

        No map of the dummy gradient does better: the noise is drawn once, is not known, and does not depend on the
        gradient. An attacker can adapt by the distance instead. For Gaussian noise the log-likelihood of the received
        update is the negative squared l2 distance, and the cosine distance is the same up to the dummy's length.
        """
        return lambda gradient: gradient
