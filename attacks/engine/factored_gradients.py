"""A gradient kept as factors: the input of every layer, and the loss's gradient in its output.

The gradient of a weight is a sum of products of both, over images and positions. Its inner products can be computed
without it: for a convolution with input a and output gradients d, <G, G*> = <d, a * G*>, and |G|^2 is the sum of the
entrywise product of two Gram matrices, of the columns of d and of the patches of a (for linear layers: Goodfellow,
2015; also known as ghost norm). Neither needs a copy of the weights per instance, nor a pass over it, which is most of
the cost of late layers at small batches.

It is made of `layer_gradients` (one layer), `weight_gradients` (a convolution's weight), `constant_layers` (what the
victim computes with) and `packed` (its convolutions on a CPU), each of which needs the later ones alone.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import vmap

from attacks.engine.constant_layers import (
    has_plain_parameters,
    is_convolution,
    is_fixed_batch_norm,
    with_constant_layers,
)
from attacks.engine.inner_products import Products, join
from attacks.engine.layer_gradients import KINDS, LayerGradient, Pairs, WeightLayerGradient, gram_is_cheaper
from victims.losses.base import classification_loss
from victims.modules import tensor_name
from victims.victim import Gradient, Victim


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
        return {
            tensor_name(layer, n): g for layer, factored in self.layers.items() for n, g in factored.gradient().items()
        }

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
            pairs |= {tensor_name(layer, name): pair for name, pair in factored.pairs(own[layer]).items()}
            found |= {tensor_name(layer, name): pair for name, pair in factored.products(own[layer]).items()}
        if joint:
            mine, received = (join({name: pair[of] for name, pair in pairs.items()}) for of in (0, 1))
            pairs = {name: (g, received[name]) for name, g in mine.items()}
        found |= {name: Products.apply(*pair) for name, pair in pairs.items()}
        return found if joint else {name: found[name] for name in self.names}

    def work(self, batch_size: int) -> tuple[int, int]:
        """What `Layers` says of itself, for batches of this size: `spared` and `multiplications`."""
        weighted = [layer for layer in self.layers.values() if isinstance(layer, WeightLayerGradient)]
        uses = [(layer.layer.weight, layer.positions // layer.d.shape[1] * batch_size) for layer in weighted]
        spared = sum(weight.numel() for weight, positions in uses if gram_is_cheaper(weight, positions))
        return spared, sum(weight.numel() * positions for weight, positions in uses)


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

        Raises:
            ValueError: see `recorded`.
        """
        R, B = images.shape[:2]
        further = torch.is_grad_enabled()
        with torch.enable_grad(), recorded(self.modules) as calls:
            x = images if images.requires_grad else images.detach().requires_grad_()
            flat = x.flatten(0, 1)
            if flat.device.type == "cpu":
                flat = flat.contiguous(memory_format=torch.channels_last)
            logits = self.victim.logits({}, flat).unflatten(0, (R, B))
            batch_loss = partial(classification_loss, self.victim.criterion)  # which may mix the images of its batch
            loss = vmap(batch_loss)(logits, labels).sum() if R > 1 else batch_loss(logits[0], labels[0])
            gradients = torch.autograd.grad(loss, [call.output for call in calls.values()], create_graph=further)
        layers = {}
        for (name, call), d in zip(calls.items(), gradients, strict=True):
            module = self.modules[name]
            entering = (call.input if further else call.input.detach()).unflatten(0, (R, B))
            layers[name] = KINDS[type(module)](module, entering, d.unflatten(0, (R, B)))
        return FactoredGradient(self.names, layers)


class Call(NamedTuple):
    """A layer's input, and the place of its output in the graph, where later changes of the output are not seen."""

    input: Tensor
    output: GradientEdge


@contextmanager
def recorded(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Call]]:
    """Record the only call of every layer, by name, while the context lasts.

    Raises:
        ValueError: a layer is called twice or not at all.
    """
    calls: dict[str, Call] = {}

    def record(name: str, _: nn.Module, given: tuple[Tensor, ...], left: Tensor) -> None:
        if name in calls:
            raise ValueError(f"{name} is called twice")
        calls[name] = Call(given[0], get_gradient_edge(left))

    hooks = [layer.register_forward_hook(partial(record, name)) for name, layer in layers.items()]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
    if calls.keys() != layers.keys():
        raise ValueError(f"{next(iter(layers.keys() - calls.keys()))} is not called")


def plain_layers(victim: Victim) -> dict[str, nn.Module] | None:
    """The layers with trained parameters, if all of them can be factored and no layer adds to the loss."""
    own = {
        layer: [tensor_name(layer, name) for name, _ in module.named_parameters(recurse=False)]
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
