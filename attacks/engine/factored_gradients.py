"""A gradient kept as factors: the input of every layer, and the loss's gradient in its output.

The gradient of a weight is a sum of products of both, over images and positions. Its inner products can be computed
without it: for a convolution with input a and output gradients d, <G, G*> = <d, a * G*>, and |G|^2 is the sum of the
entrywise product of two Gram matrices, of the columns of d and of the patches of a (for linear layers: Goodfellow,
2015; also known as ghost norm). Neither needs a copy of the weights per instance, nor a pass over it, which is most of
the cost of late layers at small batches.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.functional import conv2d, fold, linear, pad

from attacks.engine.constant_layers import (
    ConstantBatchNorm,
    ConstantConvolution,
    Convolution,
    How,
    has_plain_parameters,
    is_convolution,
    is_fixed_batch_norm,
    with_constant_layers,
)
from attacks.engine.inner_products import Products, is_broadcast
from attacks.engine.packed import kept
from victims.losses.base import classification_loss
from victims.victim import Gradient, Victim, passing

JOINED = 1 << 12  # entries of an instance; measured: joining tensors up to this size is faster than one by one
SMALL = 1 << 17  # entries of an instance's patches; measured: below, one product for all beats a convolution for each


class WeightGradient(torch.autograd.Function):
    """d loss / d weight of a convolution, (O, kernel, C), and d loss / d bias, (O,) or None.

    Differentiable in input and gradients, by two plain convolutions: torch's own second derivative exchanges kernel and
    image in one of them, which is slow.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, d: Tensor, layer: Any) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(a, d)
        ctx.how = layer.stride, layer.padding, layer.dilation
        _, weight, bias = derivatives(a, d, layer.weight, ctx.how, [False, True, layer.bias is not None])
        return weight.permute(0, 2, 3, 1).contiguous(), bias

    @staticmethod
    def backward(ctx: Any, u: Tensor, of_bias: Tensor | None) -> tuple[Tensor, Tensor, None]:
        a, d = ctx.saved_tensors
        u = u.permute(0, 3, 1, 2)
        return derivatives(a, d, u, ctx.how, [True, False, False])[0], conv2d(a, u, of_bias, *ctx.how), None


def derivatives(a: Tensor, d: Tensor, weight: Tensor, how: How, of: list[bool]) -> tuple[Tensor, ...]:
    """Of <d, weight * a + bias> in a, weight and bias; None where they are not asked for."""
    return torch.ops.aten.convolution_backward(d, a, weight, [len(weight)], *how, False, [0, 0], 1, of)


class Patches(torch.autograd.Function):
    """The inputs of a convolution's kernel: images (N, C, H, W) -> (N, h, w, kernel C).

    As torch's unfold, whose own loop takes two to four times as long as this copy of a view.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, kernel: tuple, *how: tuple) -> Tensor:
        ctx.size, ctx.how = a.shape[2:], (kernel, *how)
        (dilation, padding, stride) = how
        a = pad(a.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
        for side in (0, 1):
            a = a.unfold(1 + side, dilation[side] * (kernel[side] - 1) + 1, stride[side])[..., :: dilation[side]]
        return a.permute(0, 1, 2, 4, 5, 3).flatten(3)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, None, None, None, None]:
        kernel = ctx.how[0]
        u = u.flatten(1, 2).unflatten(2, (kernel[0] * kernel[1], -1)).permute(0, 3, 2, 1)
        return fold(u.flatten(1, 2), ctx.size, *ctx.how), None, None, None, None


class GramNorm(torch.autograd.Function):
    """|D^T A|^2 of A (R, N, K) and D (R, N, O), as the sum of the entrywise product of their Gram matrices: (R,)."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, D: Tensor) -> Tensor:
        of_A, of_D = A @ A.mT, D @ D.mT
        ctx.save_for_backward(A, D, of_A, of_D)
        return torch.linalg.vecdot(of_A.flatten(1), of_D.flatten(1))

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        A, D, of_A, of_D = ctx.saved_tensors
        u = 2 * u[:, None, None]
        return (u * of_D) @ A, (u * of_A) @ D


Pairs = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class LayerGradient:
    """The gradient of one layer's parameters, as factors.

    Attributes:
        layer: the module.
        a: its input, (R, B, ...).
        d: the loss's gradient in its output, (R, B, ...).
    """

    layer: Any
    a: Tensor
    d: Tensor

    def gradient(self) -> Gradient:
        """(R, *shape) of every parameter, by its name in the layer."""
        raise NotImplementedError

    def pairs(self, target: Gradient) -> Pairs:
        """Gradients that have to be formed, with the received ones."""
        return {name: (g, target[name]) for name, g in self.gradient().items()}

    def products(self, target: Gradient) -> Pairs:
        """<g, g*> and |g|^2 of the others, (R,) each."""
        return {}


def gram_is_cheaper(weight: Tensor, positions: int) -> bool:
    """Whether both Gram matrices cost less than the gradient of a weight that is used at so many positions."""
    rows, columns = weight.flatten(1).shape
    return positions * (columns + rows) < columns * rows


class WeightLayerGradient(LayerGradient):
    """Of a layer that multiplies its input by a weight (O, ...) and may add a bias."""

    def patches(self) -> Tensor:
        """The inputs of the weight as a matrix (O, K), at all N positions of all images: (R, N, K)."""
        raise NotImplementedError

    def gradients(self) -> Tensor:
        """d at all positions of all images: (R, N, O)."""
        raise NotImplementedError

    def applied(self, weight: Tensor) -> Tensor:
        """The layer with another weight on the input of every instance; shaped as d."""
        raise NotImplementedError

    @property
    def positions(self) -> int:
        """N, over the images of an instance."""
        return self.d[0, :, 0].numel()

    def formed(self) -> tuple[Tensor, Tensor | None]:
        """The gradients of the weight, (R, O, K), and of the bias, (R, O)."""
        return self.gradients().mT @ self.patches(), self.of_bias()

    def of_bias(self) -> Tensor | None:
        return None if self.layer.bias is None else self.gradients().sum(1)

    def matrix(self, weight: Tensor) -> Tensor:
        """A received gradient (R, O, ...) with its entries in the order of `patches`: (R, O, K)."""
        raise NotImplementedError

    def gradient(self) -> Gradient:
        weight, bias = self.formed()
        return {"weight": weight} | ({} if bias is None else {"bias": bias})

    def by_gram(self, target: Gradient) -> bool:
        return gram_is_cheaper(self.layer.weight, self.positions) and is_broadcast(target["weight"])

    def pairs(self, target: Gradient) -> Pairs:
        weight, bias = (None, self.of_bias()) if self.by_gram(target) else self.formed()
        pairs = {} if weight is None else {"weight": (weight, self.matrix(target["weight"]))}
        return pairs if bias is None else pairs | {"bias": (bias, target["bias"])}

    def products(self, target: Gradient) -> Pairs:
        if not self.by_gram(target):
            return {}
        received = target["weight"]
        alone = kept(received, "alone", lambda: received[0].data)  # no view
        along = (self.d * self.applied(alone)).sum(tuple(range(1, self.d.ndim)))
        return {"weight": (along, GramNorm.apply(self.patches(), self.gradients()))}


class ConvolutionGradient(WeightLayerGradient):
    @property
    def how(self) -> How:
        return self.layer.stride, self.layer.padding, self.layer.dilation

    def patches(self) -> Tensor:
        stride, padding, dilation = self.how
        patches = Patches.apply(self.a.flatten(0, 1), self.layer.kernel_size, dilation, padding, stride)
        return patches.unflatten(0, self.a.shape[:2]).flatten(1, 3)

    def gradients(self) -> Tensor:
        return self.d.permute(0, 1, 3, 4, 2).flatten(1, 3)

    def matrix(self, weight: Tensor) -> Tensor:
        one = weight[:1] if is_broadcast(weight) else weight
        return kept(weight, "matrix", lambda: one.movedim(2, 4).flatten(2).clone()).expand(len(weight), -1, -1)

    def gradient(self) -> Gradient:
        channels, *kernel = self.layer.weight.shape[1:]
        gradient = super().gradient()
        return gradient | {"weight": gradient["weight"].unflatten(2, (*kernel, channels)).permute(0, 1, 4, 2, 3)}

    def applied(self, weight: Tensor) -> Tensor:
        return Convolution.apply(self.a.flatten(0, 1), weight, None, self.how).unflatten(0, self.a.shape[:2])

    def formed(self) -> tuple[Tensor, Tensor | None]:
        small = self.layer.weight[0].numel() * self.positions < SMALL
        if len(self.a) > 1 and (small or self.a.is_cuda):  # on a GPU the loop below waits for its launches
            return super().formed()
        each = [WeightGradient.apply(a, d, self.layer) for a, d in zip(self.a, self.d, strict=True)]
        weight, bias = ([g for g in found if g is not None] for found in zip(*each, strict=True))
        return stacked([g.flatten(1) for g in weight]), stacked(bias) if bias else None


def stacked(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors) if len(tensors) > 1 else tensors[0][None]  # without a copy


class LinearGradient(WeightLayerGradient):
    def patches(self) -> Tensor:
        return self.a.flatten(1, -2)

    def gradients(self) -> Tensor:
        return self.d.flatten(1, -2)

    def matrix(self, weight: Tensor) -> Tensor:
        return weight

    def applied(self, weight: Tensor) -> Tensor:
        return linear(self.a, weight)


class BatchNormGradient(LayerGradient):
    """Of a batch norm that normalizes by its running statistics."""

    def gradient(self) -> Gradient:
        layer = self.layer
        inverse = (layer.running_var + layer.eps).rsqrt()
        normed = torch.addcmul((-layer.running_mean * inverse)[:, None, None], self.a, inverse[:, None, None])
        positions = (1, 3, 4)
        return {"weight": (self.d * normed).sum(positions), "bias": self.d.sum(positions)}


KINDS: dict[type[nn.Module], type[LayerGradient]] = {
    ConstantConvolution: ConvolutionGradient,
    nn.Linear: LinearGradient,
    ConstantBatchNorm: BatchNormGradient,
}


class FactoredGradient(Mapping[str, Tensor]):
    """A gradient (R, *shape) per parameter, whose tensors are formed when they are asked for."""

    def __init__(self, names: tuple[str, ...], layers: Mapping[str, LayerGradient]) -> None:
        """
        Args:
            names: of the parameters, in the victim's order.
            layers: by name.
        """
        self.names, self.layers = names, layers

    @cached_property
    def _formed(self) -> Gradient:
        return {joined(layer, n): g for layer, factored in self.layers.items() for n, g in factored.gradient().items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._formed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def products(self, target: Mapping[str, Tensor], *, joint: bool = False) -> Pairs:
        """<g, g*> and |g|^2 of every parameter, (R,) each.

        Args:
            joint: those of all small tensors are one, under the name "".
        """
        own: dict[str, Gradient] = {layer: {} for layer in self.layers}
        for name in self.names:
            layer, _, short = name.rpartition(".")
            own[layer][short] = target[name]
        pairs: Pairs = {}
        found: Pairs = {}
        for layer, factored in self.layers.items():
            pairs |= {joined(layer, name): pair for name, pair in factored.pairs(own[layer]).items()}
            found |= {joined(layer, name): pair for name, pair in factored.products(own[layer]).items()}
        if joint:
            small = {name: pair for name, pair in pairs.items() if pair[0][0].numel() < JOINED}
            pairs = {name: pair for name, pair in pairs.items() if name not in small}
            if small:
                mine, received = (torch.cat([g.flatten(1) for g in s], 1) for s in zip(*small.values(), strict=True))
                pairs[""] = mine, received
        found |= {name: Products.apply(*pair) for name, pair in pairs.items()}
        return found if joint else {name: found[name] for name in self.names}

    def work(self, batch_size: int) -> tuple[int, int]:
        """What `Layers` says of itself, for batches of this size: `spared` and `multiplications`."""
        weighted = [layer for layer in self.layers.values() if isinstance(layer, WeightLayerGradient)]
        uses = [(layer.layer.weight, layer.positions // layer.d.shape[1] * batch_size) for layer in weighted]
        spared = sum(weight.numel() for weight, positions in uses if gram_is_cheaper(weight, positions))
        return spared, sum(weight.numel() * positions for weight, positions in uses)


def joined(layer: str, name: str) -> str:
    return f"{layer}.{name}".lstrip(".")


@dataclass(frozen=True)
class Layers:
    """All layers with trained parameters of a victim whose gradient can be factored.

    Attributes:
        modules: by name; each is called once.
        names: of the parameters, in the victim's order.
        spared: entries of weight gradients that inner products need not form.
        multiplications: of a forward pass of one batch. Factoring is faster for several instances always, and for one
            if either is large.
    """

    victim: Victim
    modules: Mapping[str, nn.Module]
    names: tuple[str, ...]
    spared: int = 0
    multiplications: int = 0

    @classmethod
    def of(cls, victim: Victim) -> "Layers":
        """All layers with trained parameters of a victim, which has only such that can be factored."""
        victim = with_constant_layers(victim)
        return cls(victim, plain_layers(victim) or {}, tuple(victim.parameters))

    def gradient(self, images: Tensor, labels: Tensor) -> FactoredGradient:
        """d loss / d theta for every instance, all as one batch; differentiable if gradients are enabled.

        Args:
            images: (R, B, C, H, W), normalized.
            labels: (R, B) classes, or (R, B, K) probabilities.
        """
        R, B = images.shape[:2]
        further = torch.is_grad_enabled()
        with torch.enable_grad(), passing(self.modules) as seen:
            x = images if images.requires_grad else images.detach().requires_grad_()
            flat = x.flatten(0, 1)
            if flat.device.type == "cpu":
                flat = flat.contiguous(memory_format=torch.channels_last)
            logits = self.victim.logits({}, flat).unflatten(0, (R, B))
            batch_loss = partial(classification_loss, self.victim.criterion)  # which may mix the images of its batch
            loss = vmap(batch_loss)(logits, labels).sum() if R > 1 else batch_loss(logits[0], labels[0])
            calls = {name: called for name, (called,) in seen.items()}
            gradients = torch.autograd.grad(loss, [out for _, out in calls.values()], create_graph=further)
        layers = {}
        for (name, (a, _)), d in zip(calls.items(), gradients, strict=True):
            module = self.modules[name]
            entering = (a if further else a.detach()).unflatten(0, (R, B))
            layers[name] = KINDS[type(module)](module, entering, d.unflatten(0, (R, B)))
        return FactoredGradient(self.names, layers)


def plain_layers(victim: Victim) -> dict[str, nn.Module] | None:
    """The layers with trained parameters, if all of them can be factored and no layer adds to the loss."""
    own = {
        layer: [joined(layer, name) for name, _ in module.named_parameters(recurse=False)]
        for layer, module in victim.model.named_modules()
    }
    layers = {n: victim.model.get_submodule(n) for n, names in own.items() if victim.trained.intersection(names)}
    partly_frozen = any(not victim.trained.issuperset(own[layer]) for layer in layers)
    if victim.penalties or partly_frozen or not all(map(is_plain, layers.values())):
        return None
    return layers


def is_plain(layer: nn.Module) -> bool:
    linear = type(layer) is nn.Linear and has_plain_parameters(layer)
    return linear or is_convolution(layer) or is_fixed_batch_norm(layer)
