"""Vanishing gradients: images that a victim is so certain of that they add almost nothing to its update."""

import torch
from torch import Tensor

from victims.victim import Victim, classification_loss

ROUNDINGS = 1000  # above this, three digits are right


def vanishing(victim: Victim, images: Tensor, labels: Tensor) -> str | None:
    """A message about images whose share of the gradient is near zero; None if there are none.

    That share is linear in p - y, the gradient of the loss in the logits, and a probability p near 1 is known up to one
    rounding of its number type. If 1 - p of the label is below a thousand roundings (1.2e-4 in float32), the share is
    smaller by that factor than for an uncertain image, and fewer than three of its digits are right.

    Args:
        images: (B, C, H, W) in [0, 1].
        labels: (B,).
    """
    with torch.no_grad():
        logits = victim.logits(victim.parameters, victim.normalize(images)).double()
    losses = torch.stack([classification_loss(z[None], y[None]) for z, y in zip(logits, labels, strict=True)])
    least = ROUNDINGS * torch.finfo(images.dtype).eps
    certain = int((-torch.expm1(-losses) < least).sum())  # 1 - p, for the loss is -log p
    if not certain:
        return None
    kind = str(images.dtype).removeprefix("torch.")
    return (
        f"the victim is certain of {certain} of {len(labels)} images (1 - p of the label below {least:.0e}): they add "
        f"almost nothing to the update, with fewer than three right digits in {kind}."
    )
