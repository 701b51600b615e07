"""Batch norm in train mode, differentiable twice under `vmap`."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from victims.errors import InputError


class BatchNorm(nn.Module):
    """Normalizes by the batch's own statistics, in elementary operations, and keeps no running statistics.

    torch's own layer in train mode silently gives a wrong second derivative under `torch.func.vmap` of a `grad` (seen
    in torch 2.15): the part through its saved statistics is lost.
    """

    running_mean: None = None
    running_var: None = None

    def __init__(self, layer: _BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = layer.weight, layer.bias, layer.eps
        self.num_features, self.momentum = layer.num_features, layer.momentum  # a model's own forward may read them
        self.after = nn.Sequential(*layer.children())  # timm's layers include the activation that follows

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...).

        Raises:
            InputError: a channel has a single value, which would become zero; torch's own layer refuses it too.
        """
        if x.numel() == x.shape[1]:
            raise InputError(
                "batch norm in train mode has one value per channel here, and makes it zero; give a larger --batch or "
                "--size, or --victim-mode eval."
            )
        over, channels = [0, *range(2, x.ndim)], (-1, *[1] * (x.ndim - 2))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # as torch's layer under autocast
        centered = wide - wide.mean(over, keepdim=True)
        y = centered * (centered.square().mean(over, keepdim=True) + self.eps).rsqrt()
        if self.weight is not None and self.bias is not None:
            y = torch.addcmul(self.bias.view(channels), y, self.weight.view(channels))
        elif self.weight is not None:  # of a layer with bias=False
            y = y * self.weight.view(channels)
        return self.after(y.to(x.dtype))


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm | BatchNorm]:
    """Every batch-norm layer by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm | BatchNorm)}


def use_batch_statistics(model: nn.Module) -> None:
    """Replace batch-norm layers that are in train mode, in place; parameters keep their names."""
    made: dict[nn.Module, BatchNorm] = {}  # a layer may have several names
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if isinstance(child, _BatchNorm) and child.training and is_plain(child):
                if child not in made:
                    made[child] = BatchNorm(child)
                setattr(module, name, made[child])


@torch.no_grad()
def is_plain(layer: _BatchNorm) -> bool:
    """Whether `BatchNorm` computes the same: not where a subclass, a hook or a parametrization does something else."""
    if set(layer._parameters) != {"weight", "bias"} or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    if type(layer).forward is _BatchNorm.forward or isinstance(layer, nn.SyncBatchNorm):
        return True
    try:
        seeded = torch.Generator().manual_seed(0)  # the caller's draws stay what they are
        x = torch.rand(4, layer.num_features, 3, 3, generator=seeded).to(layer.running_mean)
        return torch.allclose(deepcopy(layer)(x.clone()), BatchNorm(layer)(x), rtol=1e-3, atol=1e-5)
    except Exception:  # of the subclass's own forward
        return False
