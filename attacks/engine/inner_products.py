"""Inner products of gradients, of every instance: tensors (R, *shape) each -> (R,).

Their gradients take one pass over the gradient, whereas plain autograd makes a temporary of its size for every
operation. Victims have millions of weights, so this saves up to a quarter of a step.
"""

from typing import Any

import torch
from torch import Tensor

from victims.victim import Gradient

BLOCK = 1 << 19  # entries; measured: the temporary of a product of this size fits into a cache
SMALL = 1 << 12  # entries of an instance; measured: joining tensors up to this size is faster than one by one


def is_broadcast(target: Tensor) -> bool:
    """Whether all instances have the same tensor."""
    return len(target) == 1 or target.stride(0) == 0


def join(gradient: Gradient) -> Gradient:
    """The same entries in fewer tensors, for sums over all of them: small tensors form one vector per instance."""
    small = {name: g for name, g in gradient.items() if g[0].numel() < SMALL}
    large = {name: g for name, g in gradient.items() if name not in small}
    return {"": torch.cat([g.reshape(len(g), -1) for g in small.values()], 1), **large} if small else large


def dot(g: Tensor, target: Tensor) -> Tensor:
    """<g, target>, differentiated by the functions below.

    In blocks, because BLAS adds up millions of entries one after another, and only four digits of a norm are right.
    """
    g, target = g.reshape(len(g), -1), target.reshape(len(target), -1)
    n = max(1, BLOCK // len(g))
    if g.shape[1] <= n:
        return torch.linalg.vecdot(g, target)
    parts = zip(g.split(n, 1), target.split(n, 1), strict=True)
    return torch.stack([torch.linalg.vecdot(a, b) for a, b in parts]).sum(0)


def for_each(u: Tensor, g: Tensor) -> Tensor:
    """One number per instance, (R,), shaped to be broadcast over g, (R, *shape)."""
    return u.view(-1, *[1] * (g.ndim - 1))


class Products(torch.autograd.Function):
    """<g, target> and |g|^2; the target is constant."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(g, target)
        return dot(g, target), dot(g, g)

    @staticmethod
    def backward(ctx: Any, u: Tensor, v: Tensor) -> tuple[Tensor, None]:
        g, target = ctx.saved_tensors
        return torch.addcmul(for_each(u, g) * target, g, for_each(v, g), value=2), None


class Square(torch.autograd.Function):
    """|g|^2."""

    @staticmethod
    def forward(ctx: Any, g: Tensor) -> Tensor:
        ctx.save_for_backward(g)
        return dot(g, g)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Tensor:
        (g,) = ctx.saved_tensors
        return for_each(2 * u, g) * g
