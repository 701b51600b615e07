"""What a client computes from its private batch."""

from torch import Tensor

from victims.victim import Gradient, Victim, gradient


def fed_sgd(victim: Victim, images: Tensor, labels: Tensor) -> Gradient:
    """FedSGD: the gradient of the mean cross-entropy over the batch, one step, nothing else.

    Args:
        images: (B, C, H, W) in [0, 1].
        labels: (B,).
    """
    return {name: g.detach() for name, g in gradient(victim, victim.normalise(images), labels).items()}
