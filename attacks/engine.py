"""The victim's gradient at many dummy batches at once, differentiable in the images."""

import copy
import warnings
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, vmap

from victims.errors import Notice
from victims.victim import Gradient, Statistics, Victim, batch_statistics, gradient

AGREE = 1e-6  # relative, in float64


def victim_gradients(victim: Victim, images: Tensor, labels: Tensor, *, vectorised: bool = True) -> Gradient:
    """d loss / d theta for every run.

    Args:
        images: (R, B, C, H, W), normalised.
        labels: (R, B) classes, or (R, B, K) probabilities.
        vectorised: all runs as one `torch.func` computation; otherwise one after another by plain autograd,
            which works for every victim. Both agree to rounding.

    Returns:
        (R, *shape) per parameter.
    """
    if vectorised:
        return vmap(grad(victim.loss), in_dims=(None, 0, 0))(victim.parameters, images, labels)
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        runs = [gradient(victim, x, y, create_graph=differentiable) for x, y in zip(images, labels, strict=True)]
    return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}


def victim_statistics(victim: Victim, images: Tensor, *, vectorised: bool = True) -> Statistics:
    """Batch-norm statistics of every run's images (R, B, C, H, W), normalised: (R, 2, C) per layer."""
    if vectorised:
        return vmap(partial(batch_statistics, victim))(images)
    runs = [batch_statistics(victim, x) for x in images]
    return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}


def vectorises(victim: Victim, image_shape: tuple[int, int, int], batch_size: int) -> bool:
    """Whether `torch.func` runs this victim and agrees with plain autograd; where not, a warning says why.

    The slopes of a gradient's norm in two random batches are compared in float64: some layers, such as torch's
    layer norm, are silently wrong under `vmap` when they are differentiated twice.
    """
    double = copy.deepcopy(victim).to(victim.mean.device, torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, batch_size, *image_shape, generator=generator, dtype=torch.float64)
    images = double.normalise(x.to(victim.mean.device)).requires_grad_()
    labels = torch.zeros(2, batch_size, dtype=torch.long, device=images.device)

    def slopes(vectorised: bool) -> Tensor:
        dummy = victim_gradients(double, images, labels, vectorised=vectorised)
        return torch.autograd.grad(sum(g.square().sum() for g in dummy.values()), images)[0]

    try:
        fast = slopes(True)
    except RuntimeError as error:
        reason = f"torch.func cannot run this victim ({str(error).strip().splitlines()[0]})"
    else:
        plain = slopes(False)
        if (fast - plain).norm() <= AGREE * plain.norm():
            return True
        reason = "torch.func and plain autograd disagree on this victim's second derivative"
    warnings.warn(f"{reason}; going on run by run.", Notice, stacklevel=2)
    return False
