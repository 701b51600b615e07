"""Projections of variables after a step."""

import torch
from torch import Tensor


def l1_ball(v: Tensor, radius: Tensor) -> Tensor:
    """The nearest point (in l2) of the l1 ball, exactly, by sorting (Duchi et al., 2008, figure 1).

    Args:
        v: (N, D).
        radius: (N,), each above 0.
    """
    u = v.abs().sort(1, descending=True).values
    excess = u.cumsum(1) - radius[:, None]
    j = torch.arange(1, v.shape[1] + 1, device=v.device, dtype=v.dtype)
    rho = (u * j > excess).sum(1, keepdim=True).clamp_min(1)  # number of entries that stay nonzero; 0 for NaN
    theta = excess.gather(1, rho - 1) / rho
    projected = v.sign() * (v.abs() - theta).clamp_min(0)
    return torch.where(v.abs().sum(1, keepdim=True) <= radius[:, None], v, projected)


def sphere(v: Tensor, radius: Tensor) -> Tensor:
    """v scaled to the sphere of `radius`, in the norm of `sphere_norm`."""
    return v * (radius / sphere_norm(v).clamp_min(1e-12))


def sphere_norm(v: Tensor) -> Tensor:
    """l2 norms of latents (R, B, d), of each layer of (R, B, L, d), of each map of (R, B, 1, H, W); dims are kept.

    Separately for every image: with one norm over the whole batch, as in published code, images would trade length.
    """
    return torch.linalg.vector_norm(v, dim=tuple(range(3, v.ndim)) or -1, keepdim=True)
