"""The victim's gradient at many dummy batches at once, differentiable in the images."""

import warnings
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, vmap

from victims.errors import Notice
from victims.victim import Gradient, Statistics, Victim, batch_statistics, gradient


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
    runs = [gradient(victim, x, y, create_graph=True) for x, y in zip(images, labels, strict=True)]
    return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}


def victim_statistics(victim: Victim, images: Tensor, *, vectorised: bool = True) -> Statistics:
    """Batch-norm statistics of every run's images (R, B, C, H, W), normalised: (R, 2, C) per layer."""
    if vectorised:
        return vmap(partial(batch_statistics, victim))(images)
    runs = [batch_statistics(victim, x) for x in images]
    return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}


def vectorises(victim: Victim, image_shape: tuple[int, int, int], batch_size: int) -> bool:
    """Whether `torch.func` can run this victim; where it cannot, a warning says why."""
    images = victim.mean.new_zeros(2, batch_size, *image_shape).requires_grad_()
    labels = torch.zeros(2, batch_size, dtype=torch.long, device=images.device)
    try:
        dummy = victim_gradients(victim, images, labels)
        torch.autograd.grad(sum(g.square().sum() for g in dummy.values()), images)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        warnings.warn(f"torch.func cannot run this victim, going on run by run: {reason}", Notice, stacklevel=2)
        return False
    return True
