"""The victim's gradient at many dummy batches at once, differentiable in the images."""

import copy
import warnings
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, vmap

from victims.client import GradientFn, LocalTraining, mean_gradient
from victims.errors import Notice
from victims.victim import Gradient, Statistics, Victim, batch_statistics, gradient_at

AGREE = 1e-6  # relative, in float64


def victim_gradients(
    victim: Victim, images: Tensor, labels: Tensor, *, local: LocalTraining | None = None, vectorized: bool = True
) -> Gradient:
    """d loss / d theta for every run, or (theta_0 - theta_T) / (lr T), the mean of those that local training takes.

    Args:
        images: (R, B, C, H, W), normalized.
        labels: (R, B) classes, or (R, B, K) probabilities.
        local: with its learning rate; the result is differentiable through all of its steps. Clients and mini-batches
            are cut from the batch in its order.
        vectorized: all runs as one `torch.func` computation; otherwise one after another by plain autograd,
            which works for every victim. Both agree to rounding.

    Returns:
        (R, *shape) per parameter.
    """

    def of_run(gradient_fn: GradientFn, x: Tensor, y: Tensor) -> Gradient:
        theta = victim.parameters
        return mean_gradient(gradient_fn, theta, x, y, local) if local else gradient_fn(theta, x, y)

    if vectorized:
        return vmap(partial(of_run, grad(victim.loss)))(images, labels)
    gradient_fn = partial(gradient_at, victim, create_graph=torch.is_grad_enabled())
    with torch.enable_grad():
        first, *others = (of_run(gradient_fn, x, y) for x, y in zip(images, labels, strict=True))
    if not others:
        return {name: g[None] for name, g in first.items()}  # as it is, for it may be large
    return {name: torch.stack([g, *(run[name] for run in others)]) for name, g in first.items()}


def victim_statistics(victim: Victim, images: Tensor, *, vectorized: bool = True) -> Statistics:
    """Batch-norm statistics of every run's images (R, B, C, H, W), normalized: (R, 2, C) per layer."""
    if vectorized:
        return vmap(partial(batch_statistics, victim))(images)
    runs = [batch_statistics(victim, x) for x in images]
    return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}


def vectorizes(
    victim: Victim, image_shape: tuple[int, int, int], batch_size: int, local: LocalTraining | None = None
) -> bool:
    """Whether `torch.func` runs this victim and agrees with plain autograd; where not, a warning says why.

    The gradients of a gradient's norm in two random batches are compared in float64: some layers, such as torch's
    layer norm, are silently wrong under `vmap` when they are differentiated twice.

    Args:
        local: training that is to be repeated, in which every run comes to weights of its own.
    """
    double, images, labels = probe(victim, image_shape, batch_size if local else min(batch_size, 2))

    def gradients(vectorized: bool) -> Tensor:
        dummy = victim_gradients(double, images, labels, local=local, vectorized=vectorized)
        return torch.autograd.grad(sum(g.square().sum() for g in dummy.values()), images)[0]

    try:
        fast = gradients(True)
    except RuntimeError as error:
        reason = f"torch.func cannot run this victim ({str(error).strip().splitlines()[0]})"
    else:
        plain = gradients(False)
        if agree(fast, plain):
            return True
        reason = "torch.func and plain autograd disagree on this victim's second derivative"
    warnings.warn(f"{reason}; going on run by run.", Notice, stacklevel=2)
    return False


def probe(victim: Victim, image_shape: tuple[int, int, int], batch_size: int) -> tuple[Victim, Tensor, Tensor]:
    """A copy of the victim in float64, and two random batches (2, B, C, H, W) with labels to try it on."""
    double = copy.deepcopy(victim).to(victim.mean.device, torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, batch_size, *image_shape, generator=generator, dtype=torch.float64)
    images = double.normalize(x.to(victim.mean.device)).requires_grad_()
    return double, images, torch.zeros(2, batch_size, dtype=torch.long, device=images.device)


def agree(fast: Tensor, plain: Tensor) -> bool:
    """Whether a probe's gradients are those of plain autograd."""
    return bool((fast - plain).norm() <= AGREE * plain.norm())
