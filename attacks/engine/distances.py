"""Distances between dummy gradients and received ones. Every tensor is (R, *shape), every result (R,)."""

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from attacks.engine.factored_gradients import FactoredGradient
from attacks.engine.inner_products import Products, Square, dot, is_broadcast
from victims.errors import InputError
from victims.observation import Transform
from victims.victim import Gradient

Weights = Mapping[str, Tensor]
"""The weight of every tensor, (R,) each, 0 or more; if a distance is given None, all weights are 1."""

SMALL = 1 << 12  # entries of an instance; measured: joining tensors up to this size is faster than one by one
TINY = 1e-30  # a zero dummy gradient has no direction: its cosine is 0, not NaN, and so are the gradients there


class Target(dict[str, Tensor]):
    """What dummy gradients are matched against, (R, *shape) each; its norms are computed once."""

    @cached_property
    def norm2(self) -> Gradient:
        """|g*|^2, (R,) each."""
        return {name: dot(g, g) for name, g in self.items()}

    @cached_property
    def joined(self) -> "Target":
        """See `join`."""
        if not all(map(is_broadcast, self.values())):
            return Target(join(self))
        instances = len(next(iter(self.values())))
        one = join({name: g[:1] for name, g in self.items()})
        return Target({name: g.expand(instances, *g.shape[1:]) for name, g in one.items()})


def join(gradient: Gradient) -> Gradient:
    """The same entries in fewer tensors, for sums over all of them: small tensors form one vector per instance."""
    small = {name: g for name, g in gradient.items() if g[0].numel() < SMALL}
    large = {name: g for name, g in gradient.items() if name not in small}
    return {"": torch.cat([g.flatten(1) for g in small.values()], 1), **large} if small else large


def _products(dummy: Gradient, received: Gradient) -> tuple[Tensor, Tensor, Tensor]:
    """<g, g*>, |g|^2 and |g*|^2 of the dummy's L tensors, (L, R) each."""
    if isinstance(dummy, FactoredGradient):
        products = dummy.products(received)
    else:
        products = {name: Products.apply(g, received[name]) for name, g in dummy.items()}
    along, norm2 = map(torch.stack, zip(*products.values(), strict=True))
    return along, norm2, torch.stack([target_of(received).norm2[name] for name in products])


def target_of(received: Gradient) -> Target:
    return received if isinstance(received, Target) else Target(received)


def _squares(dummy: Gradient, received: Gradient) -> Tensor:
    """|g - g*|^2 of the dummy's L tensors, (L, R).

    Close to the received gradient this must be the norm of a difference, because a difference of norms loses its
    gradient. Candidates of a gradient-free step are only compared with each other.
    """
    if isinstance(dummy, FactoredGradient) and not torch.is_grad_enabled():
        along, norm2, target_norm2 = _products(dummy, received)
        return (norm2 - 2 * along + target_norm2).clamp_min(0)
    return torch.stack([Square.apply(g - received[name]) for name, g in dummy.items()])


def _sum(terms: Tensor, names: Iterable[str], weights: Weights | None) -> Tensor:
    """Over the tensors of these names, weighted: (L, R) -> (R,)."""
    return (terms if weights is None else torch.stack([weights[name] for name in names]) * terms).sum(0)


def cosine(dummy: Gradient, received: Gradient, weights: Weights | None = None) -> Tensor:
    """1 - sum w<g, g*> / sqrt(sum w|g|^2) / sqrt(sum w|g*|^2), one cosine over all tensors together.

    Geiping et al., 2020, eq. 4. NaN if the received gradient is zero: there is nothing to match.
    """
    if weights is None and dummy.keys() == received.keys() and not isinstance(dummy, FactoredGradient):
        dummy, received = join(dummy), target_of(received).joined
    along, norm2, target_norm2 = (_sum(each, dummy, weights) for each in _products(dummy, received))
    return 1 - along / norm2.clamp_min(TINY).sqrt() / target_norm2.sqrt()


def squared_l2(dummy: Gradient, received: Gradient, weights: Weights | None = None) -> Tensor:
    """sum w|g - g*|^2 (Zhu et al., 2019, eq. 3)."""
    return _sum(_squares(dummy, received), dummy, weights)


def layer_l2(dummy: Gradient, received: Gradient, weights: Weights | None = None) -> Tensor:
    """sum w|g - g*|: norms, not squared (Yin et al., 2021, eq. 7)."""
    return _sum(_squares(dummy, received).clamp_min(TINY).sqrt(), dummy, weights)


def compress(received: Gradient, rate: float) -> Transform:
    """Keeps, of every tensor, the entries that are the largest in `received`; the others become zero.

    Applied to dummy and received gradient before a cosine it is `sim_cmpr<rate>` of GIAS's and GIFD's code, which
    however keeps too many entries where magnitudes are tied.

    Args:
        received: decides which entries are kept, separately for each instance.
        rate: share of every tensor's entries that is left out, in [0, 1); one entry always stays.
    """
    keep = 1 - Fraction(str(rate))  # of 100 entries 0.9 leaves 10; in floating point it would be 9
    masks = {}
    for name, target in received.items():
        flat = target.flatten(1)
        index = flat.abs().topk(max(1, int(flat.shape[1] * keep)), dim=1, sorted=False).indices
        masks[name] = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, index, True).view_as(target)
    return lambda gradient: {name: g.where(masks[name], 0) for name, g in gradient.items()}


def tensor_choice(text: str) -> tuple[str, int]:
    """Which tensors a distance sees: `all`, or `first`, `last` or `top` and how many, such as `top10`.

    Raises:
        InputError: it is none of these.
    """
    found = re.fullmatch(r"(all)|(first|last|top)([1-9][0-9]*)", text)
    if not found:
        raise InputError(f"tensors are all, firstK, lastK or topK with K from 1, such as top10, not '{text}'.")
    return (found[2], int(found[3])) if found[2] else ("all", 0)


def chosen_tensors(received: Gradient, tensors: str) -> dict[str, Tensor]:
    """Weight 1 for each of the L tensors that is chosen, 0 for the others, as in Inverting Gradients' code.

    Args:
        received: in the victim's order, which `first` and `last` refer to; `top` goes by the norms of each instance.
        tensors: see `tensor_choice`; K beyond L means all.

    Returns:
        (R,) per tensor.

    Raises:
        InputError: `tensors` is none of these.
    """
    where, K = tensor_choice(tensors)
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in received.values()], 1)  # (R, L)
    L = norms.shape[1]
    i = torch.arange(L).to(norms).expand_as(norms)
    if where == "top":
        chosen = torch.zeros_like(i).scatter(1, norms.topk(min(K, L), dim=1).indices, 1)
    else:
        chosen = {"all": i >= 0, "first": i < K, "last": i >= L - K}[where].to(norms)
    return dict(zip(received, chosen.unbind(1), strict=True))
