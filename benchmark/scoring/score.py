"""Scores of a batch: images are assigned once, then every metric scores them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmark.scoring.metrics import METRICS, Metric
from victims.contract import Broken, line_of, line_of_error
from victims.trial import type_and_shape

SCORES = "a metric gives a number for each image"
FLAT = 2 / 255


def readable(reconstruction: Tensor) -> Tensor:
    """What is scored: on the CPU in float32, clamped to [0, 1]; a pixel that is NaN is mid-gray (0.5), +-inf 1 or 0."""
    return reconstruction.cpu().float().nan_to_num(nan=0.5).clamp(0, 1)


def assign(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """The one-to-one assignment p of least total MSE: (B, C, H, W) twice -> (B,) long.

    `p[i]` is the index of the reconstruction that belongs to truth i: `reconstruction[p]` lines up with truth.
    """
    cost = torch.cdist(truth.flatten(1).double(), reconstruction.flatten(1).double()).square()
    _, p = linear_sum_assignment(cost.numpy(force=True))
    return torch.as_tensor(p, device=reconstruction.device)


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def score(
    reconstruction: Tensor, truth: Tensor, *, failed: bool = False, **given: Any
) -> tuple[Tensor, dict[str, list[float | None]]]:
    """Assign a batch once, by MSE, and score each image: (B, C, H, W) twice -> aligned (B, C, H, W), scores.

    Works on the CPU in float32, so that the device of an attack does not move its scores, see `readable`. `aligned[i]`
    and the i-th score of each metric belong to truth i.

    Args:
        failed: whether the attack diverged; then the scores are those of a failure.
        given: what metrics need, such as `squeeze` and `gallery`. A metric that needs something else is left out;
            one that cannot score such images has None for each.

    Raises:
        ValueError: the shapes differ, or `truth` leaves [0, 1] (images that are still normalized).
    """
    if reconstruction.shape != truth.shape:
        raise ValueError(f"reconstruction {tuple(reconstruction.shape)} and truth {tuple(truth.shape)} differ")
    truth = truth.cpu().float()
    low, high = truth.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"truth must lie in [0, 1], got [{low:.3g}, {high:.3g}]")
    reconstruction = readable(reconstruction)
    aligned = reconstruction[assign(reconstruction, truth)]
    scores: dict[str, list[float | None]] = {}
    for name, each in METRICS.items():
        if each.needs <= given.keys():
            values = computed(each, aligned, truth, given)
            scores[name] = [None] * len(truth) if values is None else values.tolist()
    return aligned, of_failure(scores) if failed else scores


def computed(metric: Metric, reconstruction: Tensor, truth: Tensor, given: Mapping[str, Any]) -> Tensor | None:
    """Its scores, (B,), of aligned images (B, C, H, W) in [0, 1]; None where it cannot score them.

    Raises:
        Broken: they are no such numbers.
    """
    name, place = metric.function.__name__, line_of(metric.function)
    try:
        values: Any = metric.function(reconstruction, truth, **{need: given[need] for need in metric.needs})
    except Exception as error:
        if not metric.users_own:
            raise
        raise Broken(
            SCORES, f"{name} raises {type(error).__name__}: {error}", line_of_error(error, metric.function)
        ) from error
    if values is None:
        return None
    if not isinstance(values, Tensor) or values.shape != (len(truth),):
        raise Broken(
            SCORES, f"{name} gives {type_and_shape(values)}; give ({len(truth)},), a number for each image", place
        )
    if values.isnan().any():
        fix = "give a number, or None in place of the tensor where it cannot score such images"
        raise Broken(SCORES, f"{name} gives NaN; {fix}", place)
    return values


def try_own(shape: Sequence[int]) -> None:
    """Try metrics of the user's own before anything is attacked: on noise (B, C, H, W), on itself and of one color.

    Raises:
        Broken: as `computed`.
    """
    draws = torch.Generator().manual_seed(0)
    one, other = (torch.rand(*shape, generator=draws) for _ in range(2))
    for each in METRICS.values():
        if each.users_own and not each.needs:
            for reconstruction in (one, other, *(torch.full_like(other, level) for level in (0.0, 0.5, 1.0))):
                computed(each, reconstruction, other, {})


def degenerate(truth: Tensor) -> Tensor:
    """Whether a private image is of almost one color: any flat picture of that color scores high, whatever leaks.

    (B, C, H, W) in [0, 1] -> (B,): the standard deviation of every channel is below 2/255.
    """
    return (truth.double().flatten(2).std(2) < FLAT).all(1)


def of_failure(scores: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    """What a diverged attack scores, in place of the scores of the image that it was started with.

    That image is the mean color or noise, and is often nearer to the truth than an honest reconstruction.
    """
    return {
        name: [None if value is None else METRICS[name].failure for value in values] for name, values in scores.items()
    }
