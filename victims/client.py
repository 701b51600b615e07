"""What a client computes from its private batch."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from victims.data.base import ImageData
from victims.errors import InputError
from victims.victim import Gradient, Statistics, Victim, batch_statistics, gradient

Level = Literal["none", "running", "unmixed", "exact"]
MOMENTUM = 0.1  # of torch's batch norm


def fed_sgd(victim: Victim, images: Tensor, labels: Tensor) -> Gradient:
    """FedSGD: the gradient of the mean loss over the batch, one step, nothing else.

    Args:
        images: (B, C, H, W) in [0, 1].
        labels: (B,).
    """
    return {name: g.detach() for name, g in gradient(victim, victim.normalise(images), labels).items()}


def calibrate(model: nn.Module, data: ImageData, batches: int = 8, size: int = 64) -> None:
    """Give a model's batch norm the running statistics of evenly spaced images, as if it had trained on them.

    Raises:
        InputError: the model keeps none.
    """
    if not any(getattr(module, "track_running_stats", False) for module in model.modules()):
        raise InputError(
            f"{type(model).__name__} keeps no running statistics to calibrate; use --victim-weights random."
        )
    images, _ = data.batch(data.readable(range(0, len(data), max(1, len(data) // (batches * size)))))
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    with torch.no_grad():
        update_bn(((images - mean) / std).split(size), model)


def known_statistics(victim: Victim, images: Tensor, level: Level) -> Statistics | None:
    """The batch-norm statistics that an attacker of this level knows.

    - `none`: nothing.
    - `running`: the model's own running statistics, which every participant has.
    - `unmixed`: the client shares the running statistics after its step, as FedAvg with batch norm does; the
      attacker takes those before it out again.
    - `exact`: those of the private batch, which published attacks often assume.

    Args:
        images: (B, C, H, W) in [0, 1].

    Raises:
        InputError: the victim has no such statistics.
    """
    if level == "none":
        return None
    if not victim.running:
        raise InputError(f"{type(victim.model).__name__} keeps no running batch-norm statistics; choose --bn none.")
    if level == "running":
        return victim.running
    if level == "exact":
        return {name: s.detach() for name, s in batch_statistics(victim, victim.normalise(images)).items()}
    if not victim.training:
        raise InputError("in eval mode no running statistics move, so none can be unmixed; add --victim-mode train.")
    return unmix(victim, running_after(victim, images), tuple(images.shape))


def running_after(victim: Victim, images: Tensor) -> Statistics:
    """The client's running statistics after one forward of its batch in train mode: (1 - m) old + m batch."""
    batch = batch_statistics(victim, victim.normalise(images), correction=1)  # as torch keeps them
    return {name: old.lerp(batch[name].detach(), MOMENTUM) for name, old in victim.running.items()}


def unmix(victim: Victim, after: Statistics, shape: tuple[int, ...]) -> Statistics:
    """The batch's statistics from the running ones before and after: (after - (1 - m) before) / m.

    Args:
        shape: (B, C, H, W) of the batch; with it the variance is freed of torch's correction n / (n - 1).
    """
    sizes = {n: x.numel() // x.shape[1] for n, x in victim.batch_norm_inputs(victim.mean.new_zeros(shape)).items()}
    found = {}
    for name, before in victim.running.items():
        mean, variance = (after[name] - (1 - MOMENTUM) * before) / MOMENTUM
        found[name] = torch.stack([mean, variance * (sizes[name] - 1) / sizes[name]])
    return found
