"""Signs alone: Bernstein, Wang, Azizzadenesheli, Anandkumar, signSGD, ICML 2018, algorithm 1."""

import torch
from torch import Tensor

from defenses.base import Defense
from victims.observation import Transform
from victims.victim import Gradient, Victim

TINY = 1e-30  # a tensor of zeros has no mean magnitude: it stays zero, and its gradients stay small


class Sign(Defense):
    """Every entry becomes its sign: 1, -1 or 0."""

    examples = ("sign",)

    def __call__(self, update: Gradient, generator: torch.Generator) -> Gradient:
        return {name: g.sign() for name, g in update.items()}

    @staticmethod
    def estimate(received: Gradient, victim: Victim) -> Transform:
        """g / (|g| + m), where m is the mean magnitude of the dummy gradient's own tensor: a sign that has gradients.

        The sign itself has none. Entries far above m become their sign. Entries near zero, whose sign a small change of
        the images flips, stay near zero. Every tensor has the same weight as in the received update. The result does
        not depend on lengths, so the magnitudes that were not sent are not needed.
        """

        def soft(g: Tensor) -> Tensor:
            m = g.abs().reshape(len(g), -1).mean(1)
            return g / (g.abs() + m.where(m > TINY, 1).view(-1, *[1] * (g.ndim - 1)))

        return lambda gradient: {name: soft(g) for name, g in gradient.items()}
