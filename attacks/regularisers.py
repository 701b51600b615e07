"""What an attacker believes of images in general. Images are (R, B, C, H, W), every result (R,)."""

from torch import Tensor


def _differences(images: Tensor) -> tuple[Tensor, Tensor]:
    return images.diff(dim=-1).flatten(1), images.diff(dim=-2).flatten(1)


def total_variation(images: Tensor) -> Tensor:
    """mean |dx| + mean |dy| on the normalised image: the convention of Inverting Gradients' and GIAS's code."""
    dx, dy = _differences(images)
    return dx.abs().mean(1) + dy.abs().mean(1)


def squared_variation(images: Tensor) -> Tensor:
    """Sum of squared neighbour differences over the batch (GIAS, eq. 4)."""
    dx, dy = _differences(images)
    return dx.square().sum(1) + dy.square().sum(1)
