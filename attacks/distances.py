"""Distances between dummy gradients and received ones. Every tensor is (R, *shape), every result (R,)."""

from collections.abc import Iterator

from torch import Tensor

from victims.victim import Gradient

TINY = 1e-30  # a zero dummy gradient has no direction: its cosine is 0, not NaN


def _pairs(dummy: Gradient, received: Gradient) -> Iterator[tuple[Tensor, Tensor]]:
    for name, g in dummy.items():
        yield g.flatten(1), received[name].flatten(1)


def cosine(dummy: Gradient, received: Gradient) -> Tensor:
    """1 - <g, g*> / (|g| |g*|), one cosine over all tensors together (Geiping et al., 2020, eq. 4).

    NaN where the received gradient is zero: there is nothing to match.
    """
    dot = sum((g * target).sum(1) for g, target in _pairs(dummy, received))
    norm2 = sum(g.square().sum(1) for g, _ in _pairs(dummy, received))
    target_norm2 = sum(target.square().sum(1) for _, target in _pairs(dummy, received))
    return 1 - dot / norm2.clamp_min(TINY).sqrt() / target_norm2.sqrt()


def squared_l2(dummy: Gradient, received: Gradient) -> Tensor:
    """|g - g*|^2 summed over all tensors (Zhu et al., 2019, eq. 3)."""
    return sum((g - target).square().sum(1) for g, target in _pairs(dummy, received))
