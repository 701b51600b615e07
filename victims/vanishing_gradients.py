"""Vanishing gradients: images that a victim is so certain of that they add almost nothing to its update."""

import torch
from torch import Tensor

from victims.losses.base import Loss, classification_loss
from victims.victim import Victim

ROUNDINGS = 1000  # above this, three digits are right
HALF = 0.5  # a thousand roundings of float16 and bfloat16 are more


def vanishing(victim: Victim, images: Tensor, labels: Tensor) -> str | None:
    """A message about images whose share of the gradient is near zero; None if there are none, or that is not known.

    That share is linear in the loss's gradient in the logits, p - y under cross-entropy, and a probability p near 1 is
    known up to one rounding of its number type. If that gradient is below a thousand roundings (1.2e-4 in float32) of
    the one at equal logits, the share is smaller by that factor than for an uncertain image, and fewer than
    three of its digits are right. In half precision no number has three, so nothing is said.

    Args:
        images: (B, C, H, W) in [0, 1].
        labels: (B,) classes, or (B, K) probabilities.
    """
    least = ROUNDINGS * torch.finfo(images.dtype).eps
    if least > HALF:
        return None
    logits = victim.logits(victim.parameters, victim.normalize(images)).detach()
    pairs = zip(logits.split(1), labels.split(1), strict=True)
    loss = victim.criterion
    try:
        largest = [(in_logits(loss, z, y), in_logits(loss, torch.zeros_like(z), y)) for z, y in pairs]
    except Exception:  # of a loss that takes no single image: there is no share of one
        return None
    certain = sum(own < least * uncertain for own, uncertain in largest)
    if not certain:
        return None
    kind = str(images.dtype).removeprefix("torch.")
    return (
        f"the victim is certain of {certain} of {len(labels)} images (gradient in the logits below {least:.0e} of an "
        f"uncertain image's): they add almost nothing to the update, with fewer than three right digits in {kind}."
    )


def in_logits(loss: Loss, logits: Tensor, labels: Tensor) -> float:
    """The largest derivative of one image's loss in its logits."""
    at = logits.detach().requires_grad_()
    with torch.enable_grad():
        (found,) = torch.autograd.grad(classification_loss(loss, at, labels), at)
    return float(found.abs().max())
