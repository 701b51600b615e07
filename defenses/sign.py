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
        """s g / (|g| + m), where m is the mean magnitude of the dummy gradient's own tensor: a sign that has gradients.

        The sign itself has none. Entries far above m become their sign. Entries near zero, whose sign a small change of
        the images flips, stay near zero. Every tensor has the same weight as in the received update. The result does
        not depend on lengths, so the magnitudes that were not sent are not needed. s is the size of a received sign: 1,
        or after local training 1 / (lr T), as the update is received in units of a gradient.
        """

        def each(values: Tensor, g: Tensor) -> Tensor:
            """(R,), for all entries of (R, ...)."""
            return values.view(-1, *[1] * (g.ndim - 1))

        def soft(g: Tensor, s: Tensor) -> Tensor:
            m = g.abs().reshape(len(g), -1).mean(1)
            return each(s, g) * g / (g.abs() + each(m.where(m > TINY, 1), g))

        sizes = {name: size(g) for name, g in received.items()}
        return lambda gradient: {name: soft(g, sizes[name]) for name, g in gradient.items()}


def size(signs: Tensor) -> Tensor:
    """The median magnitude of the entries that are not zero, (R, ...) -> (R,); 1 where all are."""
    magnitudes = signs.abs().reshape(len(signs), -1)
    return magnitudes.where(magnitudes > 0, torch.nan).nanmedian(1).values.nan_to_num(1.0)
