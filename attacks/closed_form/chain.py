"""The victim as R-GAP sees it: a chain of layers, in float64 on the CPU, that can be evaluated and inverted."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vjp

from victims.errors import InputError
from victims.losses.base import loss_name
from victims.losses.bce import BCE
from victims.losses.cross_entropy import CrossEntropy
from victims.modules import tensor_name
from victims.victim import Victim


@dataclass(frozen=True)
class Layer:
    """One layer of the chain: a float64 copy of its module, and the shapes of one image's input and output."""

    name: str
    module: Any
    input_shape: torch.Size
    output_shape: torch.Size

    @property
    def parameter(self) -> str:
        """The name of its weight in the update."""
        return tensor_name(self.name, "weight")


INVERSES: dict[type[nn.Module], Callable[[Any, Tensor], Tensor]] = {
    nn.LeakyReLU: lambda module, a: torch.where(a > 0, a, a / module.negative_slope),
    nn.Identity: lambda module, a: a,
    nn.Flatten: lambda module, a: a,
}
"""Each is homogeneous, f(c a) = c f(a) for c > 0, which the twins of `margins` rely on."""


def chain(victim: Victim, image_shape: tuple[int, int, int]) -> list[Layer]:
    """The victim's layers, first to last.

    Raises:
        InputError: names the first layer that cannot be inverted, or whose input is not the output before it; or the
            loss is not the logistic one.
    """
    if not isinstance(victim.criterion, CrossEntropy | BCE):  # the same for one logit
        raise InputError(
            f"R-GAP solves the logistic loss of one logit, not {loss_name(victim.criterion)}; run with --loss "
            "cross_entropy."
        )
    names = {module: name for name, module in victim.model.named_modules() if not list(module.children())}
    calls: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, given: calls.append((module, given[0].clone())))
        for module in names
    ]
    image = torch.randn(1, *image_shape, generator=torch.Generator().manual_seed(0)).to(victim.mean)
    try:
        with torch.no_grad():
            logits = victim.logits(victim.parameters, image)
    finally:
        for hook in hooks:
            hook.remove()
    layers: list[Layer] = []
    value = victim.enter(image)
    for module, x in calls:
        if fault := obstacle(module, x):
            raise refusal(names[module], module, fault)
        if x.numel() != value.numel() or not torch.allclose(x.flatten(), value.flatten()):
            raise refusal(names[module], module, "its input is not the output before it, as with a residual")
        if any(tensor_name(names[module], name) not in victim.trained for name, _ in module.named_parameters()):
            raise refusal(names[module], module, "it is frozen, and the update holds nothing of it")
        if any(layer.name == names[module] for layer in layers) and list(module.parameters()):
            raise refusal(names[module], module, "it is passed twice, and its gradient is a sum of two")
        with torch.no_grad():
            value = module(x.clone())
        layers.append(Layer(names[module], deepcopy(module).cpu().double(), x.shape[1:], value.shape[1:]))
    weighted = [(layer.name, layer.module) for layer in layers if type(layer.module) not in INVERSES]
    name, last = weighted[-1] if weighted else ("", victim.model)
    if not isinstance(last, nn.Linear) or last.out_features != 1 or not torch.allclose(value, logits):
        raise refusal(name, last, "the model has to end with a linear layer of one logit, or a LeakyReLU after it")
    return layers


def head(layers: Sequence[Layer]) -> Layer:
    """The layer that makes the logit: the last one with a weight."""
    return next(layer for layer in reversed(layers) if type(layer.module) not in INVERSES)


def obstacle(module: nn.Module, x: Tensor) -> str | None:
    """Why the input x of this layer cannot be reconstructed from its output and gradients; None if it can."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        if module.bias is not None:
            return "it has a bias"
        if isinstance(module, nn.Conv2d) and (
            module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str)
        ):
            return "only convolutions of one group, padded by a number of zeros, are known"
        if isinstance(module, nn.Linear) and x.dim() != 2:
            return "it is applied to a map and not to one vector"
        return None
    if type(module) not in INVERSES:
        return "it cannot be inverted"
    if isinstance(module, nn.LeakyReLU) and module.negative_slope <= 0:
        return "it has no slope left of zero and cannot be inverted"
    return None


def refusal(name: str, module: nn.Module, why: str) -> InputError:
    return InputError(
        f"R-GAP cannot go back through the layer {name or 'model'} ({type(module).__name__}): {why}; choose a chain of "
        "linear layers and convolutions without bias, LeakyReLU between them and one logit, such as --victim cnn6."
    )


def through(layers: Sequence[Layer], x: Tensor) -> Tensor:
    """f_{theta,r}: the output of these layers, from the first on, for one image x (C, H, W); differentiable."""
    for layer in layers:
        x = layer.module(x.reshape(1, *layer.input_shape).clone())[0]  # a clone: some activations work in place
    return x


def back(module: nn.Module, x: Tensor, k: Tensor) -> Tensor:
    """d loss / d input of any layer from d loss / d output: k W for linear layers, k f'(x) for activations."""
    output, pull, *_ = vjp(lambda x: module(x.clone()), x[None])  # a clone: some activations work in place
    return pull(k.reshape(output.shape))[0][0]
