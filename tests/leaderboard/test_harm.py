"""What a mean hides: the extremes of a batch, recognized images, and what the attacker can tell."""

import random
import re
from math import asin, pi, sqrt

import numpy as np
import pytest
from scipy import stats

from leaderboard.board import entries
from leaderboard.harm import RECOGNIZED_DB, RECOGNIZED_LPIPS, rank_interval, ranks
from leaderboard.table import as_csv, as_markdown, as_text, board_table


def told(row, costs, errors, **fields):
    """Batches of two images; `errors` are the means of their MSE."""
    return [
        row(task=f"t{i}", image=f"{i}{j}", cost=cost, mse=mse + sign * mse / 2, **fields)
        for i, (cost, mse) in enumerate(zip(costs, errors, strict=True))
        for j, sign in enumerate((-1, 1))
    ]


def knows(rows):
    (entry,) = entries(rows)
    return entry.knows


def test_the_worst_image_of_every_batch_by_hand(row):
    rows = [
        row(task=t, image=i, psnr=p) for t, i, p in [("t0", "a", 10), ("t0", "b", 20), ("t1", "c", 14), ("t1", "d", 4)]
    ]
    (entry,) = entries(rows)
    assert entry.worst_in_batch[:5] == pytest.approx((7, 0, 7 + 12.706 * 3, 2, 2), rel=1e-4)  # of 10 and 4
    assert "7.000 [0.00, 45.1]" in as_text([entry])
    assert re.search(r"worst_in_batch,worst_in_batch_low.*\n.*,7.0,0,45.1\d*,2,2,", as_csv([entry]))
    assert "worst in batch" not in as_text(entries([row(batch_size=1)]))


def test_an_image_is_recognized_by_two_scores(row):
    def share(*scores):
        rows = [row(image=str(i), task=f"t{i}", psnr=p, lpips=d) for i, (p, d) in enumerate(scores)]
        return entries(rows)[0].recognized

    limit = RECOGNIZED_DB, RECOGNIZED_LPIPS
    assert share(limit, (40, 0.01), (limit[0] - 0.01, 0.01), (40, limit[1] + 0.01)).mean == 0.5
    assert share(limit, (40, None)).n == 1
    assert share((40, None)) is None
    assert share(*[limit] * 6)[:3] == pytest.approx((1, 0.025 ** (1 / 6), 1))  # a share: exact where all are alike


def test_images_are_not_recognized_by_distances_of_two_backbones(row):
    (entry,) = entries([row(image="a"), row(image="b", lpips_backbone="alex")])
    assert entry.recognized is None
    assert "recognized" not in board_table([entry]).columns


def test_certified_is_a_share_of_the_images_whose_attacker_has_a_check(row):
    def entry(*certified):
        return entries([row(image=str(i), task=f"t{i}", certified=c) for i, c in enumerate(certified)])[0]

    assert entry(True, False, True, True).certified.mean == 0.75
    assert entry(True, None).certified.n == 1
    assert entry(None, None).certified is None
    assert "certified: share of images" in as_markdown([entry(True, False)])
    assert "certified" not in as_markdown([entry(None)])
    assert re.search(r",certified,certified_low.*\n.*,0.5,", as_csv([entry(True, False)]))


def test_knows_is_the_rank_correlation_of_scipy_over_batches(row):
    source = random.Random(2)
    costs = [round(source.random(), 1) for _ in range(12)]
    errors = [round(cost + source.random(), 1) / 4 for cost in costs]
    assert len(set(costs)) < 12  # ties
    found = knows(told(row, costs, errors))
    assert found.mean == pytest.approx(stats.spearmanr(costs, errors).statistic)
    assert (found.n, found.clusters) == (12, 12)


def test_an_attacker_who_knows_his_successes_has_one(row):
    errors = [0.01, 0.02, 0.05, 0.1, 0.3]
    assert knows(told(row, [1, 2, 3, 4, 5], errors)).mean == pytest.approx(1)
    assert knows(told(row, [5, 4, 3, 2, 1], errors)).mean == pytest.approx(-1)
    text = as_markdown(entries(told(row, [1, 2, 3, 4, 5], errors)))
    assert "| +1.000 [0.161, 1.00] (n=5) |" in text
    assert "knows: rank correlation" in text


@pytest.mark.parametrize("k", [5, 8, 20])
@pytest.mark.parametrize("rho", [0, 0.6, 0.97])
def test_its_interval_covers_the_true_rank_correlation(k, rho):
    """That of two normal variables with correlation rho is 6/pi asin(rho/2)."""
    generator = np.random.default_rng(k)
    x, noise = generator.normal(size=(2, 1000, k))
    y = rho * x + sqrt(1 - rho**2) * noise
    found = [rank_interval(stats.spearmanr(*pair).statistic, k) for pair in zip(x, y, strict=True)]
    true = 6 / pi * asin(rho / 2)
    assert np.mean([low <= true <= high for low, high in found]) >= 0.92
    assert all(-1 <= low < high <= 1 for low, high in found)


def test_a_batch_that_diverged_has_the_largest_cost(row):
    rows = told(row, [1, 2, 3, 4], [0.01, 0.02, 0.03, 0.04])
    rows += [row(task="t9", image="9", status="diverged", cost=None, mse=1.0)]
    assert knows(rows).mean == pytest.approx(1)
    assert knows(rows).n == 5


def test_knows_is_not_told_of_too_few_batches_or_without_differences(row):
    errors = [0.01, 0.02, 0.05, 0.1, 0.3]
    rows = told(row, [1, 2, 3, 4, 5], errors)
    assert knows(rows[:8]) is None
    assert knows([line | {"image": line["image"] if line["task"] != "t4" else "00"} for line in rows]) is None
    assert knows(told(row, [1] * 5, errors)) is None
    assert knows(told(row, [1, 2, 3, 4, 5], [0.1] * 5)) is None
    assert knows([line | {"cost": None} for line in rows]) is None  # a foreign row
    assert "knows" not in as_text(entries(rows[:8]))


def test_ranks_are_those_of_scipy():
    values = np.random.default_rng(0).integers(0, 6, size=20)
    assert ranks(values).tolist() == stats.rankdata(values).tolist()
