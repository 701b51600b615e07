"""A gradient held as its factors: what enters every layer, and the loss's gradient in what leaves it.

The gradient of a weight is a sum of products of both, over images and places. Its inner products do not need it: for
a convolution with input a and gradients d, <G, G*> = <d, a * G*>, and |G|^2 is the sum of the entrywise product of two
Gram matrices, of the columns of d and of the patches of a (for linear layers: Goodfellow, 2015). Neither needs a copy
of the weights for every run, nor a pass over them, which is most of what late layers cost at small batches.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.functional import conv2d, fold, linear, pad
from torch.nn.grad import conv2d_input, conv2d_weight

from attacks.engine.gradients import agree, probe, victim_gradients
from attacks.engine.inner_products import Products, shared
from victims.victim import Gradient, Victim, passing

LARGE = (
    1 << 20
)  # entries; for one run factors are slower with weights of 0.1 million, faster with 11 million (measured)
SMALL = 1 << 17  # entries of a run's patches; measured: below, one product for all runs beats a convolution for each


class WeightGradient(torch.autograd.Function):
    """d loss / d weight of a convolution, once differentiable in input and gradients by two plain convolutions.

    torch's own second derivative takes one of them with the roles of kernel and image exchanged, which is slow.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, d: Tensor, shape: torch.Size, how: tuple) -> Tensor:
        ctx.save_for_backward(a, d)
        ctx.how = how
        return conv2d_weight(a, shape, d, *how)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, Tensor, None, None]:
        a, d = ctx.saved_tensors
        return conv2d_input(a.shape, u, d, *ctx.how), conv2d(a, u, None, *ctx.how), None, None


class Patches(torch.autograd.Function):
    """What a convolution's kernel multiplies: images (N, C, H, W) -> (N, C kernel, places).

    As torch's unfold, whose own loop takes two to four times as long as this copy of a view.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, kernel: tuple, *how: tuple) -> Tensor:
        ctx.size, ctx.how = a.shape[2:], (kernel, *how)
        (dilation, padding, stride) = how
        a = pad(a, (padding[1], padding[1], padding[0], padding[0]))
        for side in (0, 1):
            a = a.unfold(2 + side, dilation[side] * (kernel[side] - 1) + 1, stride[side])[..., :: dilation[side]]
        return a.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, None, None, None, None]:
        return fold(u, ctx.size, *ctx.how), None, None, None, None


@dataclass(frozen=True)
class Factors:
    """Of one layer.

    Attributes:
        layer: the module.
        a: what enters it, (R, B, ...).
        d: the loss's gradient in what leaves it, (R, B, ...).
    """

    layer: nn.Module
    a: Tensor
    d: Tensor

    def gradient(self) -> Gradient:
        """(R, *shape) of every parameter, by its name in the layer."""
        raise NotImplementedError

    def products(self, target: Gradient) -> dict[str, tuple[Tensor, Tensor]]:
        """<g, g*> and |g|^2 of every parameter, (R,) each."""
        return {name: Products.apply(g, target[name]) for name, g in self.gradient().items()}


def saves(weight: Tensor, places: int) -> bool:
    """Whether both Gram matrices cost less than the gradient of a weight that is used at so many places."""
    rows, columns = weight.flatten(1).shape
    return places * (columns + rows) < columns * rows


class WeightFactors(Factors):
    """Of a layer that multiplies its input by a weight (O, ...) and may add a bias."""

    def patches(self) -> Tensor:
        """What the weight as a matrix (O, K) multiplies, at all N places of all images: (R, K, N)."""
        raise NotImplementedError

    def gradients(self) -> Tensor:
        """d at all places of all images: (R, O, N)."""
        raise NotImplementedError

    def applied(self, weight: Tensor) -> Tensor:
        """The layer with another weight on the input of every run; as d."""
        raise NotImplementedError

    @property
    def places(self) -> int:
        """N, over the images of a run."""
        return self.d[0, :, 0].numel()

    def weight_gradient(self) -> Tensor:
        return (self.gradients() @ self.patches().mT).unflatten(2, self.layer.weight.shape[1:])

    def gradient(self) -> Gradient:
        return {"weight": self.weight_gradient()} | self.bias()

    def bias(self) -> Gradient:
        return {} if self.layer.bias is None else {"bias": self.gradients().sum(2)}

    def products(self, target: Gradient) -> dict[str, tuple[Tensor, Tensor]]:
        if not (saves(self.layer.weight, self.places) and shared(target["weight"])):
            return super().products(target)
        A, D = self.patches(), self.gradients()
        along = (self.d * self.applied(target["weight"][0])).flatten(1).sum(1)
        norm2 = ((A.mT @ A) * (D.mT @ D)).flatten(1).sum(1)
        return {"weight": (along, norm2)} | {n: Products.apply(g, target[n]) for n, g in self.bias().items()}


class ConvolutionFactors(WeightFactors):
    @property
    def how(self) -> tuple:
        return self.layer.stride, self.layer.padding, self.layer.dilation

    def patches(self) -> Tensor:
        stride, padding, dilation = self.how
        patches = Patches.apply(self.a.flatten(0, 1), self.layer.kernel_size, dilation, padding, stride)
        return patches.unflatten(0, self.a.shape[:2]).transpose(1, 2).flatten(2)

    def gradients(self) -> Tensor:
        return self.d.flatten(3).transpose(1, 2).flatten(2)

    def applied(self, weight: Tensor) -> Tensor:
        return conv2d(self.a.flatten(0, 1), weight, None, *self.how).unflatten(0, self.a.shape[:2])

    def weight_gradient(self) -> Tensor:
        shape = self.layer.weight.shape
        small = shape[1:].numel() * self.places < SMALL
        if len(self.a) > 1 and (small or self.a.is_cuda):  # there a loop waits for its launches
            return super().weight_gradient()
        runs = zip(self.a, self.d, strict=True)
        return torch.stack([WeightGradient.apply(a, d, shape, self.how) for a, d in runs])


class LinearFactors(WeightFactors):
    def patches(self) -> Tensor:
        return self.a.flatten(1, -2).mT

    def gradients(self) -> Tensor:
        return self.d.flatten(1, -2).mT

    def applied(self, weight: Tensor) -> Tensor:
        return linear(self.a, weight)


class NormFactors(Factors):
    """Of a batch norm that normalizes by its running statistics."""

    def gradient(self) -> Gradient:
        layer = self.layer
        centerd = self.a - layer.running_mean[:, None, None]
        normed = centerd * (layer.running_var + layer.eps).rsqrt()[:, None, None]
        places = (1, 3, 4)
        return {"weight": (self.d * normed).sum(places), "bias": self.d.sum(places)}


KINDS: dict[type[nn.Module], type[Factors]] = {
    nn.Conv2d: ConvolutionFactors,
    nn.Linear: LinearFactors,
    nn.BatchNorm2d: NormFactors,
}


class Factored(Mapping[str, Tensor]):
    """A gradient (R, *shape) per parameter, of which a tensor is formed when it is asked for."""

    def __init__(self, names: tuple[str, ...], factors: Mapping[str, Factors]) -> None:
        """
        Args:
            names: of the parameters, in the victim's order.
            factors: by the layer's name.
        """
        self.names, self.factors = names, factors

    @cached_property
    def _formed(self) -> Gradient:
        return {joined(layer, n): g for layer, f in self.factors.items() for n, g in f.gradient().items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._formed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def products(self, target: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """<g, g*> and |g|^2 of every parameter, (R,) each."""
        found = {}
        for layer, factors in self.factors.items():
            own = {name: target[joined(layer, name)] for name, _ in factors.layer.named_parameters()}
            found |= {joined(layer, name): pair for name, pair in factors.products(own).items()}
        return {name: found[name] for name in self.names}


def joined(layer: str, name: str) -> str:
    return f"{layer}.{name}".lstrip(".")


@dataclass(frozen=True)
class Layers:
    """The layers that hold all parameters of a victim whose gradient can be held as factors.

    Attributes:
        modules: by name; each is called once.
        saves: whether factors are less work even for one run; for several they always are.
    """

    victim: Victim
    modules: Mapping[str, nn.Module]
    saves: bool = False

    def gradient(self, images: Tensor, labels: Tensor) -> Factored:
        """d loss / d theta for every run, all runs as one batch; differentiable where gradients are asked for.

        Args:
            images: (R, B, C, H, W), normalized.
            labels: (R, B) classes, or (R, B, K) probabilities.
        """
        R, B = images.shape[:2]
        further = torch.is_grad_enabled()
        with torch.enable_grad(), passing(self.modules) as seen:
            x = images if images.requires_grad else images.detach().requires_grad_()
            loss = R * self.victim.loss({}, x.flatten(0, 1), labels.flatten(0, 1))
            calls = {name: called for name, (called,) in seen.items()}
            gradients = torch.autograd.grad(loss, [out for _, out in calls.values()], create_graph=further)
        factors = {}
        for (name, (a, _)), d in zip(calls.items(), gradients, strict=True):
            layer = self.modules[name]
            entering = (a if further else a.detach()).unflatten(0, (R, B))
            factors[name] = KINDS[type(layer)](layer, entering, d.unflatten(0, (R, B)))
        return Factored(tuple(self.victim.parameters), factors)


def find_layers(victim: Victim, image_shape: tuple[int, int, int], batch_size: int) -> Layers | None:
    """The victim's layers; None where its gradient cannot be held as factors, or plain autograd has another one.

    The gradients of products of two random batches' gradients are compared in float64; for images do not meet in these
    layers, two are enough of any batch.
    """
    layers = plain_layers(victim)
    if layers is None:
        return None
    few = min(batch_size, 2)
    double, images, labels = probe(victim, image_shape, few)
    try:
        vmap(partial(double.loss, {}))(images, labels)  # raises where values are looked at: they are those of all runs
        held = Layers(double, plain_layers(double)).gradient(images, labels)
        target = {name: p.expand(2, *p.shape) for name, p in double.parameters.items()}
        fast = sum(along.sum() + norm2.sum() for along, norm2 in held.products(target).values())
        fast = torch.autograd.grad(fast + sum(g.square().sum() for g in held.values()), images)[0]
    except (RuntimeError, ValueError):  # a layer that is called twice or not at all
        return None
    each = victim_gradients(double, images, labels, vectorized=False)
    plain = sum((g * target[name]).sum() + 2 * g.square().sum() for name, g in each.items())
    if not agree(fast, torch.autograd.grad(plain, images)[0]):
        return None
    weights = [
        (f.layer.weight, f.places // few * batch_size) for f in held.factors.values() if isinstance(f, WeightFactors)
    ]
    return Layers(victim, layers, sum(weight.numel() for weight, places in weights if saves(weight, places)) > LARGE)


def plain_layers(victim: Victim) -> dict[str, nn.Module] | None:
    """The layers with parameters, if all of them are of kinds that factors know and the loss has no other term."""
    modules = dict(victim.model.named_modules())
    layers = {n: m for n, m in modules.items() if any(True for _ in m.parameters(recurse=False))}
    if victim.penalties or not all(map(is_plain, layers.values())):
        return None
    return layers


def is_plain(layer: nn.Module) -> bool:
    if type(layer) is nn.Conv2d:
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if type(layer) is nn.BatchNorm2d:
        return layer.track_running_stats and not layer.training
    return type(layer) is nn.Linear
