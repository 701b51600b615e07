"""Regularizers: what an attacker assumes about images in general. Images are (R, B, C, H, W), every result (R,)."""

from torch import Tensor

from victims.victim import Statistics

TINY = 1e-30  # the gradient of a norm at zero is 0, not NaN


def _differences(images: Tensor) -> tuple[Tensor, Tensor]:
    return images.diff(dim=-1).flatten(1), images.diff(dim=-2).flatten(1)


def total_variation(images: Tensor) -> Tensor:
    """mean |dx| + mean |dy| on the normalized image: the convention of Inverting Gradients' and GIAS's code."""
    dx, dy = _differences(images)
    return dx.abs().mean(1) + dy.abs().mean(1)


def squared_variation(images: Tensor) -> Tensor:
    """Sum of squared neighbor differences over the batch, every pair of neighbors once.

    Eq. 4 of GIAS goes over the neighbors of every pixel, so that every pair comes twice: what it weighs by 1e-4 is this
    weighed by 2e-4.
    """
    dx, dy = _differences(images)
    return dx.square().sum(1) + dy.square().sum(1)


def statistics_distance(dummy: Statistics, target: Statistics, first: float = 1.0) -> Tensor:
    """sum_l |mu_l - mu*_l| + |var_l - var*_l|: norms, not squared (Yin et al., 2021, eq. 9).

    Args:
        dummy, target: (R, 2, C) per batch-norm layer, in the victim's order.
        first: weight of the first layer; all others have 1.
    """
    layers = [(dummy[name] - known).square().sum(2).clamp_min(TINY).sqrt().sum(1) for name, known in target.items()]
    return first * layers[0] + sum(layers[1:])


def image_norm(images: Tensor) -> Tensor:
    """The l2 norm of the whole batch (Yin et al., 2021, eq. 8)."""
    return images.flatten(1).square().sum(1).clamp_min(TINY).sqrt()


def latent_divergence(z: Tensor) -> Tensor:
    """-1/2 sum (1 + log(s^2 + 1e-10) - m^2 - s^2) over the batch, m and s of every latent's entries (GGL's code).

    The Kullback-Leibler divergence of N(m, s^2) from N(0, 1), s^2 the mean of (z - m)^2. z is (R, B, ...).
    """
    entries = z.flatten(2)
    m, variance = entries.mean(2), entries.var(2, correction=0)
    return -(1 + (variance + 1e-10).log() - m.square() - variance).sum(1) / 2
