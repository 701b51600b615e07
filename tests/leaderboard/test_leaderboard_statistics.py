from math import isnan

import numpy as np
import pytest

from leaderboard import statistics
from leaderboard.statistics import clustered_interval, joined


@pytest.fixture
def unequal():
    """Clusters of 1 to 6 values. Their mean grows with their size, so a mean of cluster means would differ."""
    generator = np.random.default_rng(1)
    sizes = generator.integers(1, 7, size=30)
    clusters = [f"t{i}" for i, size in enumerate(sizes) for _ in range(size)]
    values = [size + generator.normal() for size in sizes for _ in range(size)]
    return values, clusters


def loop_bootstrap(values, clusters, draws):
    members = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(value)
    names, generator, means = list(members), np.random.default_rng(99), []
    for _ in range(draws):
        drawn = [v for name in generator.choice(names, size=len(names)) for v in members[name]]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    return means[int(0.025 * draws)], means[int(0.975 * draws)]


def test_interval_is_that_of_a_plain_loop(unequal):
    mean, low, high = clustered_interval(*unequal)
    expected_low, expected_high = loop_bootstrap(*unequal, draws=6000)
    assert mean == pytest.approx(sum(unequal[0]) / len(unequal[0]))
    assert low == pytest.approx(expected_low, abs=0.05 * (high - low))
    assert high == pytest.approx(expected_high, abs=0.05 * (high - low))


def test_drawing_in_blocks_changes_nothing(unequal, monkeypatch):
    whole = clustered_interval(*unequal, draws=1001)
    monkeypatch.setattr(statistics, "BLOCK", 30 * 64)
    assert clustered_interval(*unequal, draws=1001) == pytest.approx(whole)


def test_covers_the_true_mean_where_an_unclustered_interval_does_not():
    generator = np.random.default_rng(5)
    clusters = np.repeat(np.arange(30), 4)
    covered = {"clustered": 0, "unclustered": 0}
    trials = 200
    for _ in range(trials):
        values = 15 + np.repeat(generator.normal(size=30), 4) + 0.3 * generator.normal(size=120)
        for name, labels in (("clustered", clusters), ("unclustered", np.arange(120))):
            _, low, high = clustered_interval(values, labels, draws=400)
            covered[name] += low <= 15 <= high
    assert 0.88 <= covered["clustered"] / trials <= 0.99
    assert covered["unclustered"] / trials < 0.8


def test_equal_images_of_a_batch_count_as_one():
    values = np.repeat(np.random.default_rng(2).normal(size=25), 4)
    _, low, high = clustered_interval(values, np.repeat(np.arange(25), 4))
    _, lone_low, lone_high = clustered_interval(values, np.arange(100))
    assert (high - low) / (lone_high - lone_low) == pytest.approx(2, rel=0.1)  # sqrt(4)


def test_one_cluster_has_a_mean_and_no_interval():
    mean, low, high = clustered_interval([1.0, 3.0], ["t", "t"])
    assert mean == 2
    assert isnan(low)
    assert isnan(high)


def test_seed_decides_the_draws(unequal):
    assert clustered_interval(*unequal, seed=3) == clustered_interval(*unequal, seed=3)
    assert clustered_interval(*unequal, seed=3) != clustered_interval(*unequal, seed=4)


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
