"""Means with intervals over clusters, and verdicts on differences.

No verdict and no place is given below `ENOUGH` clusters.
"""

from collections.abc import Iterable, Sequence
from math import inf, isfinite, nan, sqrt
from typing import NamedTuple, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

ENOUGH = 5  # clusters
LEVEL = 0.05  # of intervals and verdicts

BETTER, UNSHOWN, WORSE = VERDICTS = ("better", "no difference shown", "worse")
MAYBE, EXCLUDED = "may be the best", "not the best"

Range = tuple[float, float]
"""The least and the greatest value of a score."""
UNBOUNDED: Range = (-inf, inf)


class Score(NamedTuple):
    """A mean with its 95 % interval.

    Attributes:
        low, high: nan where no interval is known, as of a single cluster.
        n: values.
        clusters: independent groups that the values come from.
        p: two-sided p-value of the hypothesis that the true mean is 0; for differences. nan as `low`.
        batches: different batches that the values come from, where that is known; more than `clusters` where they share
            images.
        error: the standard error of the mean over clusters; 0 where all have the same.
    """

    mean: float
    low: float
    high: float
    n: int
    clusters: int
    p: float = nan
    batches: int = 0
    error: float = nan


def clustered_interval(values: ArrayLike, clusters: Sequence[str] | NDArray, range: Range = UNBOUNDED) -> Score:
    """Mean m of `values` with its 95 % interval by Student's t over clusters.

    The images of one batch are rebuilt together and are not independent; nor are batches that share an image, see
    `joined`. With s_j the sum and n_j the number of the values of cluster j of k, and n all values, the interval is

        m ± t_{k-1}(0.975) SE,    SE^2 = k/(k-1) sum_j (s_j - m n_j)^2 / n^2,

    cut at the ends of `range`. It covers the true mean in 94 to 95 % where clusters are equally large and their means
    about normal; in 85 to 92 % for skewed values, and down to 70 % where one cluster has ten times as many values as
    the others. Where all clusters have the same mean, as those of an attack that identifies all images, SE is 0, which
    is no 95 % interval. Clusters with another mean, a share q of all, stay unseen in k draws with probability
    (1 - q)^k, which is 0.025 at q = 1 - 0.025^(1/k). The interval then holds every mean that is possible with this
    share at either end of `range`.

    Where every value is at an end of `range`, their mean is a share. Its interval is that of Clopper and Pearson where
    every cluster has one value, and otherwise that of Student's t, which ends no closer to an end of `range` than that
    of a share of which nothing was seen in k clusters: one image that is recognized makes nothing more certain.

    Args:
        values: (n,) finite numbers, at least one.
        clusters: (n,) the label of each value's cluster.
        range: of a single value. Without ends there is no interval where all clusters have the same mean.
    """
    from scipy.special import stdtr, stdtrit  # here, because a command line is read without it

    values = np.asarray(values, dtype=np.float64)
    labels, member = np.unique(np.asarray(clusters), return_inverse=True)
    m, n, k = float(values.mean()), len(values), len(labels)
    if k == 1:
        return Score(m, nan, nan, n, k)
    s, sizes = np.bincount(member, weights=values), np.bincount(member)
    if np.ptp(s / sizes) <= 1e-12 * np.abs(values).max():  # no more than rounding
        return Score(m, *_unseen(m, k, range), n, k, _p_unseen(m, k, range), error=0.0)
    error = sqrt(k / (k - 1) * float(((s - m * sizes) ** 2).sum())) / n
    half = float(stdtrit(k - 1, 1 - LEVEL / 2)) * error
    p = 2 * float(stdtr(k - 1, -abs(m) / error))
    low, high = max(m - half, range[0]), min(m + half, range[1])
    if np.isin(values, range).all():
        if k == n:
            low, high, p = _of_share(m, n, range)
        else:
            low, high = _no_surer(low, high, k, range)
    return Score(m, low, high, n, k, p, error=error)


def unpaired(a: Score, b: Score) -> Score:
    """The difference a - b of two means over different images, with its 95 % interval by Welch's t over clusters.

    With the standard errors SE_a and SE_b, of k_a and k_b clusters,

        SE^2 = SE_a^2 + SE_b^2,    degrees of freedom = SE^4 / (SE_a^4 / (k_a - 1) + SE_b^4 / (k_b - 1)).

    Where one of them is 0, which is no certainty (see `clustered_interval`), the interval holds all that the two
    intervals allow together. `clusters` and `batches` are those of the one that has fewer.
    """
    from scipy.special import stdtrit

    difference, fewer = a.mean - b.mean, min(a, b, key=lambda score: score.clusters)
    found = Score(difference, nan, nan, a.n + b.n, fewer.clusters, batches=fewer.batches)
    if not (a.error > 0 and b.error > 0):  # nan where there is one cluster
        return found._replace(low=a.low - b.high, high=a.high - b.low)
    error = sqrt(a.error**2 + b.error**2)
    freedom = error**4 / (a.error**4 / (a.clusters - 1) + b.error**4 / (b.clusters - 1))
    half = float(stdtrit(freedom, 1 - LEVEL / 2)) * error
    return found._replace(low=difference - half, high=difference + half)


def _unseen(m: float, k: int, range: Range) -> Range:
    """The interval where k clusters have the same mean m."""
    q = 1 - (LEVEL / 2) ** (1 / k)
    low, high = m - q * (m - range[0]), m + q * (range[1] - m)
    return (low, high) if isfinite(low) and isfinite(high) else (nan, nan)


def _of_share(m: float, n: int, range: Range) -> tuple[float, float, float]:
    """The interval of a share, with the p-value at which it ends at 0.

    Of n independent values some are at one end of `range` and some at the other.
    """
    from scipy.special import bdtr, bdtrc, betaincinv

    width = range[1] - range[0]
    x = round((m - range[0]) / width * n)
    low, high = betaincinv(x, n - x + 1, LEVEL / 2), betaincinv(x + 1, n - x, 1 - LEVEL / 2)
    at_zero = -range[0] / width  # the share at which the mean is 0
    p = min(1.0, 2 * min(float(bdtr(x, n, at_zero)), float(bdtrc(x - 1, n, at_zero))))
    return range[0] + width * float(low), range[0] + width * float(high), p


def _no_surer(low: float, high: float, k: int, range: Range) -> Range:
    """The interval, extended where it ends closer to an end of `range` than where all k clusters are at that end."""
    return min(low, _unseen(range[1], k, range)[0]), max(high, _unseen(range[0], k, range)[1])


def _p_unseen(m: float, k: int, range: Range) -> float:
    """The p-value at which the interval of `_unseen` ends at 0; of scores that are 0 or 1 that of the sign test."""
    if m == 0:
        return 1.0
    end = abs(range[0] if m > 0 else range[1])
    return min(1.0, 2 * (end / (end + abs(m))) ** k) if isfinite(end) else 1.0


def too_few(score: Score) -> str:
    """Why there is no verdict on a score and no place for it; empty where there can be one."""
    if score.clusters >= ENOUGH:
        return ""
    if score.batches > score.clusters:  # more batches of the same images would share more
        counted = f"{score.batches} batches share images, count as {score.clusters} ({ENOUGH} needed)"
        return f"{counted}: fewer TASKS or more images"
    return f"too few batches ({score.clusters}; {ENOUGH} needed)"


def judged(differences: Iterable[Score | None]) -> list[Score]:
    """Those on which there can be a verdict."""
    return [d for d in differences if d is not None and not too_few(d)]


def verdicts(differences: Sequence[Score | None], higher_is_better: bool, *, chosen: bool = False) -> list[str]:
    """One of `VERDICTS` for each of several differences from one reference, after Holm's correction.

    Where there can be no verdict the reason, and an empty text where there is no difference.

    Args:
        chosen: whether the reference was chosen by the same data, see `comparisons`.
    """
    p_values = [d.p for d in judged(differences)]
    adjusted = iter(holm(p_values, comparisons(len(p_values), chosen)))
    words = []
    for d in differences:
        if d is None or too_few(d):
            words.append(too_few(d) if d else "")
        elif next(adjusted) < LEVEL:
            words.append(BETTER if (d.mean > 0) == higher_is_better else WORSE)
        else:
            words.append(UNSHOWN)
    return words


def could_be_best(behind: Sequence[Score | None]) -> list[str]:
    """`EXCLUDED` or `MAYBE` for each of several candidates, from its difference from the best by the same data.

    Of scores of which the higher is better. A candidate is excluded where its difference is below 0 at p < .025,
    one-sided, after Bonferroni's correction for these differences. The candidates that are left, with the best by these
    data, hold the one that is truly the best with a probability of at least 97.5 %: that one is excluded only if one of
    the others beats it by chance, and there are as many others as differences (Gupta 1965, On some multiple decision
    rules; Hsu 1984, Constrained simultaneous confidence intervals for multiple comparisons with the best). Where there
    can be no verdict the reason, and an empty text where there is no difference.
    """
    among = len(judged(behind))
    return [
        "" if d is None else too_few(d) or (EXCLUDED if d.mean < 0 and among * d.p < LEVEL else MAYBE) for d in behind
    ]


def corrected(families: Iterable[Sequence[Score | None]], *, chosen: bool = False) -> str:
    """What a reader must know of the `verdicts` on such families of differences; empty where there are none."""
    most = max((len(judged(family)) for family in families), default=0)
    if most < 2:
        return "Verdicts at p < .05." if most else ""
    why = ": all pairs, as the reference is the best by the same data" if chosen else ""
    return (
        f"Verdicts at p < .05 after Holm's correction for {comparisons(most, chosen)} comparisons by each metric{why}."
    )


def comparisons(differences: int, chosen: bool) -> int:
    """How many comparisons a correction is for: all pairs where any of them could have been the reference."""
    return differences * (differences + 1) // 2 if chosen else differences


def holm(p_values: Sequence[float], among: int) -> list[float]:
    """Adjusted p-values of Holm's step-down procedure.

    Those below a level may be called significant together: the probability of any false one is at most the level.

    Args:
        among: how many comparisons were made or could have been; of those without a p-value it is taken to be 1.
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, (among - rank) * p_values[i])
        adjusted[i] = min(1.0, largest)
    return adjusted


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a value."""
    return value is not None and value == value


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
