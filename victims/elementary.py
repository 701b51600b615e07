"""Layers that torch cannot differentiate twice, or that write over what may be recorded, replaced by equal ones."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu6


def use_elementary_layers(model: nn.Module) -> None:
    """Replace such layers, in place; the outputs stay the same, which `trial` makes sure of.

    From here on torch also computes attention step by step in the whole process, not in fused kernels.
    """
    torch.backends.cuda.enable_flash_sdp(False)  # these settings hold on CPUs too
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    module: Any
    for module in list(model.modules()):
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # the output of the layer before may be recorded, so it must not change
        kind = type(module)
        if kind is nn.Hardsigmoid:
            module.__class__ = Hardsigmoid  # with its hooks, and at every place where it is used


class Hardsigmoid(nn.Module):
    """torch's Hardsigmoid, in operations that can be differentiated twice."""

    def forward(self, x: Tensor) -> Tensor:
        return relu6(x + 3) / 6
