from math import inf, isnan, nan

import numpy as np
import pytest
from scipy import stats

from leaderboard.statistics import (
    ENOUGH,
    EXCLUDED,
    MAYBE,
    UNSHOWN,
    WORSE,
    Score,
    clustered_interval,
    corrected,
    could_be_best,
    holm,
    joined,
    too_few,
    unpaired,
    verdicts,
)

LOGNORMAL = float(np.exp(0.5**2 / 2))


@pytest.fixture
def unequal():
    """Clusters of 1 to 6 values. Their mean grows with their size, so a mean of cluster means would differ."""
    generator = np.random.default_rng(1)
    sizes = generator.integers(1, 7, size=30)
    clusters = [f"t{i}" for i, size in enumerate(sizes) for _ in range(size)]
    values = [size + generator.normal() for size in sizes for _ in range(size)]
    return values, clusters


def test_interval_of_equal_clusters_is_student_s_of_their_means():
    values, clusters = np.random.default_rng(3).normal(size=(7, 4)), np.repeat(np.arange(7), 4)
    found = clustered_interval(values.ravel(), clusters)
    test = stats.ttest_1samp(values.mean(axis=1), 0)
    assert found[:3] == pytest.approx((values.mean(), *test.confidence_interval(0.95)))
    assert found.p == pytest.approx(test.pvalue)
    assert found[3:5] == (28, 7)


def test_error_of_unequal_clusters_is_that_of_a_regression_on_a_constant(unequal):
    """By the matrices of a cluster-robust covariance, with its factor k/(k-1)."""
    values, clusters = map(np.array, unequal)
    X, names = np.ones((len(values), 1)), sorted(set(clusters))
    inverse = np.linalg.inv(X.T @ X)
    residual = values - X @ (inverse @ X.T @ values)
    scores = [X[clusters == name].T @ residual[clusters == name] for name in names]
    covariance = len(names) / (len(names) - 1) * inverse @ sum(np.outer(g, g) for g in scores) @ inverse
    half = stats.t.ppf(0.975, len(names) - 1) * covariance[0, 0] ** 0.5
    found = clustered_interval(values, clusters)
    assert found[:3] == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))


@pytest.mark.parametrize(("kind", "least"), [("normal", 0.92), ("skewed", 0.90)])
@pytest.mark.parametrize("k", [2, 3, 4, 6, 10, 16])
def test_it_covers_the_true_mean_in_95_of_100_samples(kind, least, k):
    """Batches of 4 images with an effect of the batch and noise of the image; a bootstrap covers 50 to 92."""
    generator = np.random.default_rng(k)
    effects, noise = generator.normal(size=(1500, k, 1)), generator.normal(size=(1500, k, 4))
    values = effects + noise if kind == "normal" else np.exp(effects / 2) + noise / 2
    true = 0 if kind == "normal" else LOGNORMAL
    intervals = [clustered_interval(sample.ravel(), np.repeat(np.arange(k), 4)) for sample in values]
    assert least <= np.mean([low <= true <= high for _, low, high, *_ in intervals]) <= 0.97


def test_one_cluster_that_is_far_larger_costs_coverage():
    """As the docstring says; of cluster effects and noise of equal size."""
    generator, sizes = np.random.default_rng(6), [1, 2, 1, 2, 16]
    clusters = np.repeat(np.arange(5), sizes)
    values = generator.normal(size=(1000, 5))[:, clusters] + generator.normal(size=(1000, 22))
    intervals = [clustered_interval(sample, clusters) for sample in values]
    assert 0.65 < np.mean([low <= 0 <= high for _, low, high, *_ in intervals]) < 0.75


@pytest.mark.parametrize("k", [6, 10, 30])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_it_covers_a_share_of_images_that_are_often_all_identified(k, share):
    found = np.random.default_rng(k).random((1000, k)) < share
    intervals = [clustered_interval(sample, np.arange(k), (0, 1)) for sample in found]
    assert np.mean([low <= share <= high for _, low, high, *_ in intervals]) >= 0.94
    assert all(0 <= low <= mean <= high <= 1 for mean, low, high, *_ in intervals)


def test_an_interval_keeps_to_the_range_of_its_score():
    values, names = [0.9, 1.0, 0.5, 1.0, 1.0], list("abcde")
    free, bounded = clustered_interval(values, names), clustered_interval(values, names, (0, 1))
    assert free.high > 1
    assert bounded == free._replace(high=1)


@pytest.mark.parametrize("k", [3, 8, 24])
def test_a_share_of_single_images_has_the_exact_interval(k):
    for x in range(1, k):
        found = clustered_interval([1] * x + [0] * (k - x), range(k), (0, 1))
        exact = stats.binomtest(x, k).proportion_ci(0.95, method="exact")
        assert found[:3] == pytest.approx((x / k, *exact))
        twice = clustered_interval([2] * x + [-2] * (k - x), range(k), (-2, 2))
        assert twice[:3] == pytest.approx([4 * end - 2 for end in found[:3]])
        assert twice.p == pytest.approx(stats.binomtest(x, k).pvalue)
        assert (twice.p < 0.05) == (not twice.low <= 0 <= twice.high)


@pytest.mark.parametrize("batch", [1, 4])
def test_one_image_that_is_recognized_does_not_make_a_share_more_certain(batch):
    clusters = np.repeat(np.arange(8), batch)
    highs, lows = [], []
    for x in range(len(clusters) // 2):
        values = np.zeros(len(clusters))
        values[:x] = 1
        highs.append(clustered_interval(values, clusters, (0, 1)).high)
        lows.append(clustered_interval(1 - values, clusters, (0, 1)).low)
    assert highs == sorted(highs)
    assert lows == pytest.approx([1 - high for high in highs])
    assert highs[0] == pytest.approx(1 - 0.025 ** (1 / 8))


@pytest.mark.parametrize("k", [2, 5, 20])
def test_without_any_spread_it_is_the_exact_interval_of_a_share(k):
    for value in (0, 1):
        exact = stats.binomtest(value * k, k).proportion_ci(0.95, method="exact")
        assert clustered_interval([value] * 2 * k, [*range(k)] * 2, (0, 1))[:3] == pytest.approx((value, *exact))
    wins = clustered_interval([1.0] * k, range(k), (-1, 1))  # one attack identifies the image of every batch, one none
    assert wins.p == pytest.approx(stats.binomtest(k, k).pvalue)
    same = clustered_interval([0.0] * k, range(k), (-1, 1))
    assert (same.mean, same.p) == (0, 1)
    assert same.low < 0 < same.high


def test_the_interval_without_spread_ends_at_zero_where_its_p_value_is_the_level():
    """The end at 0 and p = .05 are derived apart; they meet."""
    for k in (5, 9):
        edge = (1 / 0.025 ** (1 / k)) - 1  # mean 1 and least value -a: (a / (a + 1))^k = 0.025 at a = 1 / edge
        found = clustered_interval([1.0] * k, range(k), (-1 / edge, 5))
        assert found.low == pytest.approx(0, abs=1e-12)
        assert found.p == pytest.approx(0.05)


def test_without_spread_and_range_there_is_no_interval():
    found = clustered_interval([0.3] * 6, range(6), (0, inf))
    assert (found.mean, found.clusters) == (pytest.approx(0.3), 6)
    assert isnan(found.low)
    assert isnan(found.high)


def test_equal_images_of_a_batch_count_as_one():
    values = np.repeat(np.random.default_rng(2).normal(size=25), 4)
    found = clustered_interval(values, np.repeat(np.arange(25), 4))
    assert found[:3] == pytest.approx(clustered_interval(values[::4], np.arange(25))[:3])
    assert (found.n, found.clusters) == (100, 25)


def test_one_cluster_has_a_mean_and_no_interval():
    found = clustered_interval([1.0, 3.0], ["t", "t"])
    assert (found.mean, found.n, found.clusters) == (2, 2, 1)
    assert isnan(found.low)
    assert isnan(found.high)


def closed_holm(p_values):
    """Holm as a closed test: the least level at which every set of hypotheses with this one falls by Bonferroni."""
    places = range(len(p_values))
    subsets = [[i for i in places if mask >> i & 1] for mask in range(1, 2 ** len(p_values))]
    return [max(min(1, len(s) * min(p_values[i] for i in s)) for s in subsets if of in s) for of in places]


def test_holm_is_the_closed_test_of_bonferroni():
    assert holm([0.01, 0.04, 0.03], 3) == pytest.approx([0.03, 0.06, 0.06])
    generator = np.random.default_rng(4)
    for count in range(7):
        p_values = (generator.random(count) ** 3).tolist()
        assert holm(p_values, count) == pytest.approx(closed_holm(p_values))
        assert holm(p_values, count + 2) == pytest.approx(closed_holm([*p_values, 1, 1])[:count])


def difference(mean, p, clusters=ENOUGH):
    return Score(mean, mean - 1, mean + 1, 9, clusters, p)


def test_verdicts_are_corrected_for_their_number():
    one, other = difference(2, 0.03), difference(-2, 0.02)
    assert verdicts([one], True) == ["better"]
    assert verdicts([one], False) == ["worse"]
    assert verdicts([one, difference(1, 0.8)], True) == [UNSHOWN, UNSHOWN]  # 2 * 0.03
    assert verdicts([one, other, None], True) == ["better", "worse", ""]  # 2 * 0.02, then 0.03
    assert "2 comparisons" in corrected([[one, other, None], [one]])
    assert "Holm" not in corrected([[one]])
    assert corrected([[], [None]]) == ""


def test_verdicts_against_the_best_are_corrected_for_all_pairs():
    one, other = difference(2, 0.03), difference(-2, 0.02)
    assert verdicts([one], True, chosen=True) == ["better"]  # two attacks are one pair
    assert verdicts([difference(-2, 0.016), one, None], True, chosen=True) == [
        "worse",
        UNSHOWN,
        "",
    ]  # 0.048, 0.06
    assert verdicts([one, other], True, chosen=True) == [UNSHOWN, UNSHOWN]  # 3 * 0.02
    assert "for 6 comparisons by each metric: all pairs, as the reference is the best" in corrected(
        [[one, other, one]], chosen=True
    )
    assert "Holm" not in corrected([[one]], chosen=True)


def test_equal_attacks_are_seldom_told_apart_when_the_best_of_them_is_the_reference():
    """Of 600 boards of 12 equal attacks on 20 batches, 5 % may have a false verdict; the sampling error is 1 %."""
    generator = np.random.default_rng(5)
    wrong = {True: 0, False: 0}
    for _ in range(600):
        attacks = generator.normal(size=(12, 20))
        best = attacks.mean(1).argmax()
        found = [clustered_interval(other - attacks[best], range(20)) for other in np.delete(attacks, best, 0)]
        for chosen in wrong:
            wrong[chosen] += set(verdicts(found, True, chosen=chosen)) != {UNSHOWN}
    assert wrong[True] <= 0.05 * 600
    assert wrong[False] > 0.08 * 600  # as if the reference were fixed


def test_which_may_be_the_best_is_corrected_for_the_others():
    far, near = difference(-2, 0.02), difference(-1, 0.03)
    assert could_be_best([far]) == [EXCLUDED]
    assert could_be_best([far, near, None]) == [EXCLUDED, MAYBE, ""]  # 2 * 0.02 and 2 * 0.03
    assert could_be_best([far, near, near]) == [MAYBE] * 3  # 3 * 0.02
    assert could_be_best([difference(2, 0.001)]) == [MAYBE]  # above the first over the images of both
    few = difference(-2, 1e-9, clusters=ENOUGH - 1)
    assert could_be_best([few, difference(-2, 0.04)]) == [too_few(few), EXCLUDED]


@pytest.mark.parametrize("lead", [0.0, 0.3])
def test_the_best_attack_is_seldom_excluded(lead):
    """Of 600 boards of 12 attacks on 20 batches, the first truly the best or no worse than all others."""
    generator = np.random.default_rng(6)
    excluded, by_pairs, out = 0, 0, 0
    for _ in range(600):
        attacks = generator.normal(size=(12, 20)) + np.array([lead] + [0.0] * 9 + [-0.9, -0.9])[:, None]
        best = attacks.mean(1).argmax()
        others = [i for i in range(12) if i != best]
        found = [clustered_interval(attacks[i] - attacks[best], range(20)) for i in others]
        said = dict(zip(others, could_be_best(found), strict=True))
        excluded += said.get(0) == EXCLUDED
        out += sum(said.get(i) == EXCLUDED for i in (10, 11))
        by_pairs += sum(
            dict(zip(others, verdicts(found, True, chosen=True), strict=True)).get(i) == WORSE for i in (10, 11)
        )
    assert excluded <= 0.025 * 600
    assert out > 1.2 * by_pairs > 0  # of two that are worse more are excluded than by a correction for all pairs


def test_there_is_no_verdict_below_five_clusters():
    few = difference(2, 1e-9, clusters=ENOUGH - 1)
    assert too_few(few) == "too few batches (4; 5 needed)"
    assert too_few(difference(2, nan)) == ""
    assert verdicts([few, difference(2, 0.04)], True) == [too_few(few), "better"]  # one comparison, not two
    assert corrected([[few]]) == ""


def test_clusters_that_share_a_member_are_one():
    """Connected components, by a search from each cluster."""
    generator = np.random.default_rng(7)
    members = {f"t{i:02}": set(generator.integers(0, 60, size=2).tolist()) for i in range(40)}
    found = joined((name, f"image {member}") for name, of in members.items() for member in of)
    for start in members:
        reached = {start}
        while more := {b for a in reached for b in members if members[a] & members[b]} - reached:
            reached |= more
        assert found[start] == min(reached)
    assert 1 < len(set(found.values())) < 40


def test_clusters_that_share_nothing_keep_their_names():
    assert joined([("b", "x"), ("a", "y"), ("a", "z")]) == {"a": "a", "b": "b"}


def test_a_difference_of_two_samples_is_that_of_welch_s_test():
    generator = np.random.default_rng(4)
    a, b = generator.normal(1, 3, (8, 4)), generator.normal(0, 1, (24, 2))
    scores = [clustered_interval(v.ravel(), np.repeat(np.arange(len(v)), v.shape[1])) for v in (a, b)]
    test = stats.ttest_ind(a.mean(axis=1), b.mean(axis=1), equal_var=False)
    found = unpaired(*scores)
    assert found[:3] == pytest.approx((a.mean() - b.mean(), *test.confidence_interval(0.95)))
    assert (found.n, found.clusters) == (80, 8)


def test_a_sample_without_spread_is_no_certainty():
    same, other = clustered_interval([100.0] * 8, range(8), (0, 100)), clustered_interval([20, 24, 28], range(3))
    found = unpaired(same, other)
    assert found[:3] == pytest.approx((76, same.low - other.high, same.high - other.low))
    assert same.low < 70
    assert isnan(unpaired(clustered_interval([1.0], ["a"]), other).low)
