"""Distances between dummy gradients and received ones. Every tensor is (R, *shape), every result (R,)."""

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from attacks.engine.factored_gradients import FactoredGradient
from attacks.engine.inner_products import Products, Square, dot, for_each, is_broadcast, join
from victims.errors import InputError
from victims.observation import Transform
from victims.victim import Gradient

Weights = Mapping[str, Tensor]
"""The weight of every tensor, (R,) each, 0 or more; if a distance is given None, all weights are 1."""

ORDINARY = (2**-40, 2**40)  # 1e-12 to 1e12: in float32 the squares of these neither under- nor overflow
TINY = 1e-30  # a zero dummy gradient has no direction: its cosine is 0, not NaN, and so are the gradients there


def scale_of(gradient: Gradient) -> Tensor:
    """(R,) the power of two above the largest magnitude of every instance; 0, NaN or infinite where that is.

    Divided by it, a gradient keeps its digits, and squares of its entries neither under- nor overflow.
    """
    flat = [single(g).reshape(len(single(g)), -1) for g in gradient.values() if g.numel()]
    bounds = [bound.abs() for g in flat for bound in (g.amin(1), g.amax(1))]  # aminmax is 20 times as slow
    largest = torch.stack([bound.expand(len(next(iter(gradient.values())))) for bound in bounds]).amax(0)
    power = torch.ldexp(torch.ones_like(largest), largest.frexp().exponent)
    return power.where((largest > 0) & largest.isfinite(), largest)


def single(g: Tensor) -> Tensor:
    """(1, *shape) where all instances have the same tensor, else the tensor itself."""
    return g[:1] if is_broadcast(g) else g


def divided(gradient: Gradient, units: Tensor) -> Gradient:
    return {name: g / for_each(units, g) for name, g in gradient.items()}


class Target(dict[str, Tensor]):
    """What dummy gradients are matched against, (R, *shape) each; all that a distance asks of it is computed once.

    A compiled step cannot look at numbers: what does is asked of a `Target`, which knows it after the first step.
    """

    @cached_property
    def scale(self) -> Tensor:
        """(R,) see `scale_of`; 1 for a gradient of zeros."""
        scale = scale_of(self)
        return scale.where(scale != 0, 1)

    @cached_property
    def norm2(self) -> Gradient:
        """|g* / scale|^2, (R,) each."""
        alone = {name: single(g) for name, g in self.items()}
        scaled = {name: g / for_each(self.scale[: len(g)], g) for name, g in alone.items()}
        return {name: dot(scaled[name].expand_as(g), scaled[name].expand_as(g)) for name, g in self.items()}

    @cached_property
    def extreme(self) -> bool:
        """Whether squares of numbers such as these may under- or overflow."""
        return not bool(((self.scale > ORDINARY[0]) & (self.scale < ORDINARY[1])).all())

    @cached_property
    def norms(self) -> Gradient:
        """See `norms_of`; in units of `scale` where squares may under- or overflow."""
        return norms_of(divided(self, self.scale) if self.extreme else self)

    @cached_property
    def _compressed(self) -> dict[float, tuple[Transform, "Target"]]:
        """By rate."""
        return {}

    def compressed(self, rate: float) -> tuple[Transform, "Target"]:
        """See `compress`: what keeps those entries of a gradient, and what it keeps of this one."""
        if rate not in self._compressed:
            mask = compress(self, rate)
            self._compressed[rate] = mask, Target(mask(self))
        return self._compressed[rate]

    @cached_property
    def joined(self) -> "Target":
        """See `join`."""
        if not all(map(is_broadcast, self.values())):
            return Target(join(self))
        instances = len(next(iter(self.values())))
        one = join({name: g[:1] for name, g in self.items()})
        return Target({name: g.expand(instances, *g.shape[1:]) for name, g in one.items()})


def _products(dummy: Gradient, received: Gradient, joint: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """<g, g*>, |g|^2 and |g* / scale|^2 of the dummy's L tensors, (L, R) each.

    Args:
        joint: only their sums are needed, and some may already be added up.
    """
    if isinstance(dummy, FactoredGradient):
        products = dummy.products(received, joint=joint)
    else:
        products = {name: Products.apply(g, received[name]) for name, g in dummy.items()}
    along, norm2 = map(torch.stack, zip(*products.values(), strict=True))
    return along, norm2, torch.stack([target_of(received).norm2[name] for name in dummy])


def target_of(received: Gradient) -> Target:
    return received if isinstance(received, Target) else Target(received)


def norms_of(gradient: Gradient) -> Gradient:
    """|g|, (R,) each."""
    return {name: g.reshape(len(g), -1).norm(dim=1) for name, g in gradient.items()}


def is_extreme(received: Gradient) -> bool:
    """Whether a `Target` is `extreme`; of other gradients it is not asked."""
    return isinstance(received, Target) and received.extreme


def _squares(dummy: Gradient, received: Gradient) -> Tensor:
    """|g - g*|^2 of the dummy's L tensors, (L, R).

    Close to the received gradient this must be the norm of a difference, because a difference of norms loses its
    gradient. Candidates of a gradient-free step are only compared with each other.

    If the received gradient is so large that its square would overflow, both are in units of its scale.
    """
    target = target_of(received)
    if is_extreme(received):
        units = target.scale.where(target.scale >= ORDINARY[1], 1)
        dummy, received = divided(dummy, units), divided(received, units)
    if isinstance(dummy, FactoredGradient) and not torch.is_grad_enabled():
        along, norm2, target_norm2 = _products(dummy, received)
        return (norm2 - 2 * along + target_norm2 * target.scale.square()).clamp_min(0)
    return torch.stack([Square.apply(g - received[name]) for name, g in dummy.items()])


def _sum(terms: Tensor, names: Iterable[str], weights: Weights | None) -> Tensor:
    """Over the tensors of these names, weighted: (L, R) -> (R,)."""
    return (terms if weights is None else torch.stack([weights[name] for name in names]) * terms).sum(0)


def cosine(dummy: Gradient, received: Gradient, weights: Weights | None = None) -> Tensor:
    """1 - sum w<g, g*> / sqrt(sum w|g|^2) / sqrt(sum w|g*|^2), one cosine over all tensors together.

    Geiping et al., 2020, eq. 4. NaN if the received gradient is zero: there is nothing to match.
    """
    if weights is None and dummy.keys() == received.keys() and not isinstance(dummy, FactoredGradient):
        dummy = join({name: dummy[name] for name in received})  # a surrogate may give another order
        received = target_of(received).joined
    target = target_of(received)
    if is_extreme(received):  # then the dummy may be as large or small, and has a unit of its own
        dummy = divided(dummy, Target({name: g.detach() for name, g in dummy.items()}).scale)
    products = _products(dummy, target, joint=weights is None)
    along, norm2, target_norm2 = (_sum(each, dummy, weights) for each in products)
    return 1 - along / norm2.clamp_min(TINY).sqrt() / (target_norm2.sqrt() * target.scale)


def squared_l2(dummy: Gradient, received: Gradient, weights: Weights | None = None) -> Tensor:
    """sum w|g - g*|^2 (Zhu et al., 2019, eq. 3); of a received gradient above 1e12, in units of its scale."""
    return _sum(_squares(dummy, received), dummy, weights)


def mean_squared_l2(dummy: Gradient, received: Gradient) -> Tensor:
    """`squared_l2` divided by the number of the dummy's tensors (GGL's and GIFD's code)."""
    return squared_l2(dummy, received) / len(dummy)


def layer_l2(dummy: Gradient, received: Gradient, weights: Weights | None = None) -> Tensor:
    """sum w|g - g*|: norms, not squared (Yin et al., 2021); units as in `squared_l2`."""
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
        flat = target.reshape(len(target), -1)
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


def chosen_tensors(dummy: Gradient, received: Gradient, tensors: str) -> dict[str, Tensor] | None:
    """Weight 1 for each of the dummy's L tensors that is chosen, 0 for the others, as in Inverting Gradients' code.

    Args:
        dummy: what an attacker who adapts to PRECODE matches is not all that was received.
        received: in the victim's order, which `first` and `last` refer to; `top` goes by the norms of each instance.
        tensors: see `tensor_choice`; K beyond L means all.

    Returns:
        (R,) per tensor; None, with which a distance is faster, if `tensors` is `all`.

    Raises:
        InputError: `tensors` is none of these.
    """
    where, K = tensor_choice(tensors)
    if where == "all":
        return None
    matched = set(dummy)  # `in dummy` would form a factored gradient
    names = [name for name in received if name in matched]
    of_tensors = received.norms if isinstance(received, Target) else norms_of(received)
    norms = torch.stack([of_tensors[name] for name in names], 1)  # (R, L)
    L = norms.shape[1]
    i = torch.arange(L, device=norms.device, dtype=norms.dtype).expand_as(norms)
    if where == "top":
        chosen = torch.zeros_like(i).scatter(1, norms.topk(min(K, L), dim=1).indices, 1)
    else:
        chosen = (i < K if where == "first" else i >= L - K).to(norms)
    return dict(zip(names, chosen.unbind(1), strict=True))
