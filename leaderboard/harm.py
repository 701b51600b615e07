"""What a mean hides of the harm: extremes of a batch, recognized images, and whether the attacker can tell them."""

from collections import defaultdict
from collections.abc import Mapping
from math import atanh, inf, sqrt, tanh

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leaderboard.rows import FlatRow
from leaderboard.statistics import ENOUGH, Score, known

Sample = tuple[int, str, str]  # seed, task, image
Samples = Mapping[Sample, FlatRow]

# Assumed: no published rule fits all data sets. Both are far from what a mean color or noise scores on photographs.
RECOGNIZED_DB, RECOGNIZED_LPIPS = 20, 0.3

NOTES = {
    "recognized": f"share of images with a PSNR of at least {RECOGNIZED_DB} dB and an LPIPS of at most "
    f"{RECOGNIZED_LPIPS} (assumed thresholds)",
    "knows": f"rank correlation, over n batches (at least {ENOUGH} that share no image), of the attacker's own cost "
    "with the true MSE: at 1 the attacker can tell which results are right, and then needs only a few that are. Easy "
    "images lower cost and error alike: compare it with the control of a shuffled update",
    "certified": "share of images that the attacker knows, by a check of its own without the truth, to be those from "
    "which the update that it saw was computed: with the control of a shuffled update, those of that one",
}
"""What a reader must know of a score, by its name."""


def of_batches(samples: Samples) -> dict[tuple[int, str], list[FlatRow]]:
    """The rows of every batch, by seed and task."""
    batches = defaultdict(list)
    for (seed, task, _), row in samples.items():
        batches[seed, task].append(row)
    return batches


def extremes(samples: Samples) -> tuple[dict[Sample, float], dict[Sample, float]]:
    """The PSNR of the best and of the worst image of every batch."""
    psnr = {
        (seed, task, ""): [value for row in rows if known(value := row.get("psnr"))]
        for (seed, task), rows in of_batches(samples).items()
    }
    best, worst = ({batch: f(values) for batch, values in psnr.items() if values} for f in (max, min))
    return best, worst


def recognized(row: FlatRow) -> float | None:
    """Whether a reconstruction shows its image, 1 or 0; None where one of its two scores is missing."""
    psnr, lpips = row.get("psnr"), row.get("lpips")
    if not known(psnr) or not known(lpips):
        return None
    return float(psnr >= RECOGNIZED_DB and lpips <= RECOGNIZED_LPIPS)


def knows(samples: Samples, clusters: Mapping[str, str]) -> Score | None:
    """Spearman's rank correlation of the attacker's cost with the true mean squared error, over batches.

    A batch that diverged has the largest cost, for the attacker sees that too. None below `ENOUGH` clusters, and where
    all costs or all errors are equal.

    Args:
        clusters: the cluster of every task.
    """
    found = {}
    for (seed, task), rows in of_batches(samples).items():
        cost = inf if rows[0]["status"] == "diverged" else rows[0]["cost"]
        errors = [value for row in rows if known(value := row.get("mse"))]
        if known(cost) and errors:
            found[seed, task] = cost, sum(errors) / len(errors)
    k = len({clusters[task] for _, task in found})
    if k < ENOUGH:
        return None
    by_cost, by_error = map(ranks, zip(*found.values(), strict=True))
    if not np.ptp(by_cost) or not np.ptp(by_error):
        return None
    r = float(np.corrcoef(by_cost, by_error)[0, 1])
    return Score(r, *rank_interval(r, k), len(found), k)


def rank_interval(r: float, k: int) -> tuple[float, float]:
    """95 % interval of Spearman's rank correlation r of k pairs, by Fisher's z (Bonett and Wright 2000).

    Fisher's z is infinite at 1, so r keeps from it half of the step that it makes where two neighbors change places.
    """
    step = 12 / (k * (k * k - 1))
    inner = min(max(r, step / 2 - 1), 1 - step / 2)
    half = 1.96 * sqrt((1 + inner**2 / 2) / (k - 3))
    low, high = tanh(atanh(inner) - half), tanh(atanh(inner) + half)
    return (low if inner <= r else -1.0), (high if inner >= r else 1.0)


def ranks(values: ArrayLike) -> NDArray:
    """1, 2, ... in the order of values; equal ones share the mean of their ranks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]
