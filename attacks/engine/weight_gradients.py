"""The gradient of a convolution's weight, formed or as its norm, in operations whose derivatives are fast."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, fold, pad

from attacks.engine.constant_layers import How


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
