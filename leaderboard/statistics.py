"""Means with bootstrap intervals over clusters."""

from collections.abc import Iterable, Sequence
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK = 2**22  # cluster indices drawn at once; limits the memory to about 100 MB


def clustered_interval(
    values: ArrayLike, clusters: Sequence[str] | NDArray, *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of `values` with its 95 % percentile bootstrap interval, resampling whole clusters.

    The images of one batch are rebuilt together and are not independent; nor are batches that share an image, see
    `joined`. A draw therefore takes whole batches, and its mean is over all images of these batches.

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


def joined(members: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Which clusters are one, because they share a member, or each shares one with a third.

    Args:
        members: (cluster, member) pairs.

    Returns:
        for every cluster the first name, in alphabetical order, of those that it is one with.
    """
    parent: dict[str, str] = {}
    first: dict[str, str] = {}

    def name(cluster: str) -> str:
        while (above := parent[cluster]) != cluster:
            parent[cluster] = cluster = parent[above]
        return cluster

    for cluster, member in sorted(members):
        parent.setdefault(cluster, cluster)
        low, high = sorted((name(cluster), name(first.setdefault(member, cluster))))
        parent[high] = low
    return {cluster: name(cluster) for cluster in parent}
