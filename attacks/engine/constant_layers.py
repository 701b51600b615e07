"""Layers whose weights never change during an attack: linear maps, and their adjoints as derivatives.

torch's own second derivative of a convolution also computes that of its weight, which nobody asks for, and its batch
norm in eval mode is a dozen operations where one suffices.
"""

from collections.abc import Sequence
from copy import copy, deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_input

from attacks.engine import packed
from attacks.engine.packed import can_pack
from victims.victim import Victim

How = tuple[Any, Any, Any]
"""Stride, padding and dilation of a convolution, (rows, columns) each."""


class Convolution(torch.autograd.Function):
    """(N, C, H, W) -> (N, O, h, w) by a constant weight and bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: How) -> Tensor:
        ctx.weight, ctx.how, ctx.size = weight, how, x.shape[2:]
        return packed.convolution(x, weight, bias, *how) if can_pack(x, weight) else conv2d(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, None, None, None]:
        return Adjoint.apply(u, ctx.weight, ctx.size, ctx.how), None, None, None


class Adjoint(torch.autograd.Function):
    """The derivative of `Convolution`, (N, O, h, w) -> (N, C, H, W), whose derivative is that without bias."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, weight: Tensor, size: Sequence[int], how: How) -> Tensor:
        ctx.weight, ctx.how = weight, how
        if can_pack(d, weight):
            return packed.adjoint(d, weight, size, *how)
        return conv2d_input((len(d), weight.shape[1], *size), weight, d, *how)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, None, None, None]:
        return Convolution.apply(u, ctx.weight, None, ctx.how), None, None, None


class ConstantConvolution(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        if x.ndim != 4 or (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return super().forward(x)
        return Convolution.apply(x, self.weight, self.bias, (self.stride, self.padding, self.dilation))


class ConstantBatchNorm(nn.BatchNorm2d):
    """Normalizes by its running statistics: y = scale x + shift in every channel."""

    scale: Tensor
    shift: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.dtype != self.scale.dtype:
            return super().forward(x)
        return torch.addcmul(self.shift, x, self.scale)


def is_convolution(layer: Any) -> bool:
    """Whether it is a plain one, with zeros beyond the borders and without groups."""
    return (
        type(layer) in (nn.Conv2d, ConstantConvolution)
        and has_plain_parameters(layer)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def is_fixed_batch_norm(layer: Any) -> bool:
    """Whether it normalizes by its running statistics."""
    return (
        type(layer) in (nn.BatchNorm2d, ConstantBatchNorm)
        and has_plain_parameters(layer)
        and layer.track_running_stats
        and not layer.training
    )


def has_plain_parameters(layer: nn.Module) -> bool:
    """Not so under weight norm, which computes them."""
    return {name for name, _ in layer.named_parameters(recurse=False)} <= {"weight", "bias"}


@torch.no_grad()
def with_constant_layers(victim: Victim) -> Victim:
    """The same victim, its weights in the same memory, computing with the layers above."""
    made = copy(victim)
    tensors = (*victim.model.parameters(), *victim.model.buffers())
    made.model = deepcopy(victim.model, {id(tensor): tensor for tensor in tensors})
    layer: Any
    for layer in made.model.modules():
        if is_convolution(layer):
            layer.__class__ = ConstantConvolution
        elif is_fixed_batch_norm(layer):
            layer.__class__ = ConstantBatchNorm
            scale = (layer.running_var + layer.eps).rsqrt() * (1 if layer.weight is None else layer.weight)
            shift = (0 if layer.bias is None else layer.bias) - layer.running_mean * scale
            layer.scale, layer.shift = scale[:, None, None], shift[:, None, None]
            for name in list(layer._buffers):  # constant too, so that a call need not protect them
                setattr(layer, name, layer._buffers.pop(name))
    return made
