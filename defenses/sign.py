"""Signs alone: Bernstein, Wang, Azizzadenesheli, Anandkumar, signSGD, ICML 2018, algorithm 1."""

import torch
from torch import Tensor

from defenses.base import Defense
from victims.observation import Transform
from victims.victim import Gradient, Victim

TINY = 1e-30  # a tensor of zeros has no magnitude to go by: it stays one, and its gradients small


class Sign(Defense):
    """Every entry becomes 1, -1, or 0 where it is zero."""

    def __call__(self, update: Gradient, generator: torch.Generator) -> Gradient:
        return {name: g.sign() for name, g in update.items()}

    @staticmethod
    def estimate(received: Gradient, victim: Victim) -> Transform:
        """g / (|g| + m), where m is the mean magnitude of the dummy's own tensor: a sign that has gradients.

        The sign itself has none. Entries far above m go to their sign, entries near zero, whose sign a small change
        of the images turns, stay near zero, and every tensor counts as it does in what was received, whatever its
        length. The result depends on no length, so the magnitudes that were not sent are not missed.
        """

        def soft(g: Tensor) -> Tensor:
            m = g.abs().reshape(len(g), -1).mean(1)
            return g / (g.abs() + m.where(m > TINY, 1).view(-1, *[1] * (g.ndim - 1)))

        return lambda gradient: {name: soft(g) for name, g in gradient.items()}
