"""Means with bootstrap intervals over clusters."""

from collections.abc import Sequence
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK = 2**22  # cluster indices drawn at once; limits the memory to about 100 MB


def clustered_interval(
    values: ArrayLike, clusters: Sequence[str] | NDArray, *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of `values` with its 95 % percentile bootstrap interval, resampling whole clusters.

    The images of one batch are rebuilt together and are not independent. A draw therefore takes whole batches, and its
    mean is over all images of these batches.

    Args:
        values: (n,) finite numbers, at least one.
        clusters: (n,) the label of each value's cluster.
        draws: bootstrap samples.
        seed: of the draws; a fixed seed makes the board a function of its rows.

    Returns:
        Mean, low, high; low = high = nan where there is only one cluster, which shows no spread between clusters.
    """
    values = np.asarray(values, dtype=np.float64)
    labels, member = np.unique(np.asarray(clusters), return_inverse=True)
    mean = float(values.mean())
    count = len(labels)
    if count == 1:
        return mean, nan, nan
    sums, sizes = np.bincount(member, weights=values), np.bincount(member)
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // count)
    means = []
    for start in range(0, draws, block):
        drawn = generator.integers(count, size=(min(block, draws - start), count))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return mean, float(low), float(high)
