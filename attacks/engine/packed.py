"""Convolutions on a CPU with weights that never change, in the layout that its library computes with.

oneDNN reorders weights into blocks of its own in every call, which for late layers takes longer than the convolution.
Here they are reordered once. Each is one operation of torch, so that a traced function holds neither this cache nor
tensors in a layout that cannot be saved.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any
from weakref import ref

import torch
from torch import Tensor

oneDNN = torch.ops.mkldnn
LIBRARY = torch.library.Library("gibench", "DEF")
KEPT: dict[int, tuple[ref[Tensor], tuple[int, int], dict[Hashable, Tensor]]] = {}
"""What was computed from a tensor, by its id: the tensor, its state then, and results by name."""


def kept(tensor: Tensor, name: Hashable, make: Callable[[], Tensor]) -> Tensor:
    """What `make` computes from a tensor, computed again only after the tensor has changed, as long as it lives.

    It must be no view of the tensor, which would then never be freed.
    """
    key, state = id(tensor), (tensor.data_ptr(), tensor._version)
    found = KEPT.get(key)
    if found is None or found[1] != state:
        found = KEPT[key] = ref(tensor, lambda _: KEPT.pop(key, None)), state, {}
    if name not in found[2]:
        found[2][name] = make()
    return found[2][name]


def forget(tensors: Iterable[Tensor]) -> None:
    """Free what was computed from these."""
    for tensor in tensors:
        KEPT.pop(id(tensor), None)


def can_pack(x: Tensor, weight: Tensor) -> bool:
    """Whether the functions below take these, on this machine."""
    single = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    return single and x.ndim == 4 and torch.backends.mkldnn.is_available() and hasattr(oneDNN, "_convolution_pointwise")


def size_after(size: Sequence[int], kernel: Sequence[int], *how: Sequence[int]) -> list[int]:
    """Of a map, by a convolution with this (stride, padding, dilation)."""
    sides = zip(size, kernel, *how, strict=True)
    return [(n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k, stride, padding, dilation in sides]


def define(name: str, arguments: str) -> Callable[[Callable[..., Tensor]], Any]:
    """Make a function on CPU tensors an operation of torch."""

    def decorate(function: Callable[..., Tensor]) -> Any:
        LIBRARY.define(f"{name}({arguments}, int[] stride, int[] padding, int[] dilation) -> Tensor")
        LIBRARY.impl(name, function, "CPU")
        return getattr(torch.ops.gibench, name).default

    return decorate


# Weights are packed for one image, so that results do not depend on how many came first; measured: as fast for more.


@define("convolution", "Tensor x, Tensor weight, Tensor? bias")
def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """As torch's: (N, C, H, W) -> (N, O, h, w), channels last in memory."""
    one = [1, *x.shape[1:]]
    packed = kept(
        weight,
        ("convolution", *one, *stride, *padding, *dilation),
        lambda: oneDNN._reorder_convolution_weight(weight, padding, stride, dilation, 1, one),
    )
    x = x.contiguous(memory_format=torch.channels_last)
    y = oneDNN._convolution_pointwise(x, packed, bias, padding, stride, dilation, 1, "none", [], "")
    return y.contiguous(memory_format=torch.channels_last)


@define("adjoint", "Tensor d, Tensor weight, int[] size")
def adjoint(
    d: Tensor, weight: Tensor, size: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """The adjoint of `convolution` in x, for an x of (H, W) = size: (N, O, h, w) -> (N, C, H, W)."""
    one = [1, *d.shape[1:]]
    rest = [
        n - ((m - 1) * s - 2 * p + e * (k - 1) + 1)
        for n, m, k, s, p, e in zip(size, d.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    packed = kept(
        weight,
        ("adjoint", *one, *rest, *stride, *padding, *dilation),
        lambda: oneDNN._reorder_convolution_transpose_weight(weight, padding, rest, stride, dilation, 1, one),
    )
    d = d.contiguous(memory_format=torch.channels_last)
    x = oneDNN._convolution_transpose_pointwise(d, packed, None, padding, rest, stride, dilation, 1, "none", [], "")
    return x.contiguous(memory_format=torch.channels_last)


@torch.library.register_fake("gibench::convolution")
def _(x: Tensor, weight: Tensor, bias: Tensor | None, *how: list[int]) -> Tensor:
    size = size_after(x.shape[2:], weight.shape[2:], *how)
    return x.new_empty(len(x), len(weight), *size).contiguous(memory_format=torch.channels_last)


@torch.library.register_fake("gibench::adjoint")
def _(d: Tensor, weight: Tensor, size: list[int], *how: list[int]) -> Tensor:
    return d.new_empty(len(d), weight.shape[1], *size).contiguous(memory_format=torch.channels_last)
