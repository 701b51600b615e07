"""What the record answers: numbers compared with those computed by hand."""

import numpy as np
import pytest
from scipy import stats

from leaderboard.answers import (
    FAILS,
    FLOOR,
    HOLDS,
    IDLE,
    LEAKS,
    OPEN,
    UNCONTROLLED,
    UNJUDGED,
    UNTRIED,
    behind,
    better_behind,
    changes,
    defended,
    gains,
    holds,
    not_above,
    over_control,
)
from leaderboard.board import entries_with_rows
from leaderboard.differences import difference_by_image
from leaderboard.statistics import BETTER, EXCLUDED, MAYBE, UNSHOWN, WORSE, too_few

IMAGES = 6
NOISE = np.random.default_rng(0).normal(0, 0.1, (4, IMAGES))


@pytest.fixture
def board(row):
    """A function that makes the board of attacks, each with the PSNR of single images."""

    def make(scores, batch=1, lpips=0.2, **changes):
        return entries_with_rows(
            row(
                attack=attack,
                control="mean_image" if attack == "mean_image" else "none",
                task=f"{batch}-{image // batch}",
                image=f"i{image}",
                batch_size=batch,
                psnr=float(psnr),
                lpips=lpips,
                **changes,
            )
            for attack, each in scores.items()
            for image, psnr in enumerate(each)
        )

    return make


def t_interval(values):
    return stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))


def test_the_strongest_attack_and_those_that_may_be_it(board):
    best = np.linspace(15, 25, IMAGES)
    scores = {"a": best, "b": best - 0.01 + NOISE[0] - NOISE[0].mean(), "c": best - 3 + NOISE[1]}
    alike, worse = behind(board(scores))
    assert (alike.base.attack, alike.other.attack, alike.verdict) == ("a", "b", MAYBE)
    assert (worse.base.attack, worse.other.attack, worse.verdict) == ("a", "c", EXCLUDED)
    for found in (alike, worse):
        expected = t_interval(scores[found.other.attack] - scores["a"])
        assert (found.difference.low, found.difference.high) == pytest.approx(expected)


def test_whether_an_attack_may_be_the_best_is_judged_for_the_other_attacks(board):
    """p = .03 alone is below .05, and twice as large it is not."""
    base = np.linspace(15, 25, IMAGES)
    unit = NOISE[2] - NOISE[2].mean()
    t = stats.t.isf(0.03 / 2, IMAGES - 1)
    scores = {"a": base, "b": base - 1 + unit / stats.sem(unit) / t, "c": base - 5 + NOISE[1]}
    assert stats.ttest_1samp(scores["b"] - scores["a"], 0).pvalue == pytest.approx(0.03)
    assert [other.verdict for other in behind(board(scores))] == [MAYBE, EXCLUDED]
    assert behind(board({name: scores[name] for name in "ab"}))[0].verdict == EXCLUDED


def test_attacks_are_compared_with_the_mean_image(board):
    control = np.linspace(10, 12, IMAGES)
    alike = control + NOISE[0] - NOISE[0].mean()
    scores = {"up": control + 2 + NOISE[1], "alike": alike, "down": control - 2 + NOISE[2], "mean_image": control}
    found = over_control(board(scores))
    assert {each.other.attack: each.verdict for each in found} == {"up": BETTER, "alike": UNSHOWN, "down": WORSE}
    assert {each.base.control for each in found} == {"mean_image"}
    difference = found[0].difference
    assert (difference.low, difference.high) == pytest.approx(t_interval(scores["up"] - control))
    assert not_above(board(scores)) == {"alike", "down"}
    assert not_above(board({"a": control})) == set(), "without the control nothing is known"
    assert [each.other.attack for each in behind(board(scores))] == ["alike", "down"], "the control is no attack"


def test_two_attacks_of_which_none_is_above_the_mean_image_have_no_verdict(board):
    control = np.linspace(10, 12, IMAGES)
    scores = {"plain": control - 3 + NOISE[0], "prior": control - 1 + NOISE[1]}
    kinds = {"prior": "generator"}
    assert gains(board(scores), kinds)["generator"].verdict == BETTER
    assert gains(board(scores | {"mean_image": control}), kinds)["generator"].verdict == FLOOR
    assert gains(board(scores | {"mean_image": control - 2}), kinds)["generator"].verdict == BETTER


def test_nothing_is_answered_below_five_batches(board):
    few = board({"a": [20, 21, 22, 23], "b": [10, 11, 12, 13]})
    assert behind(few) == []
    assert gains(few, {"a": "generator"}) == {}
    assert changes([(few, few)]) == [None]


def test_a_prior_is_worth_its_best_attack_minus_the_best_without_one(board):
    base = np.linspace(15, 25, IMAGES)
    scores = {
        "plain": base,
        "worse": base - 4,
        "g1": base + 2 + NOISE[0],
        "g2": base + 1 + NOISE[1],
        "d": base - NOISE[2] + NOISE[2].mean(),
    }
    found = gains(board(scores), {"g1": "generator", "g2": "generator", "d": "denoiser"})
    assert found.keys() == {"generator", "denoiser"}
    gain = found["generator"]
    assert (gain.other.attack, gain.base.attack, gain.verdict, gain.difference.n) == ("g1", "plain", "better", IMAGES)
    assert gain.difference.mean == pytest.approx((scores["g1"] - base).mean())
    assert (gain.difference.low, gain.difference.high) == pytest.approx(t_interval(scores["g1"] - base))
    assert found["denoiser"].verdict == UNSHOWN


def test_without_an_attack_that_has_no_prior_no_prior_has_a_worth(board):
    assert gains(board({"a": np.linspace(15, 25, IMAGES)}), {"a": "generator"}) == {}


def test_images_are_paired_across_batches_and_those_of_one_batch_are_one_cluster(board):
    """12 single images, and 16 in batches of two: 12 in common, in six clusters of two."""
    rng = np.random.default_rng(1)
    single, batched = rng.normal(25, 2, 12), rng.normal(20, 2, 16)
    (one,), (two,) = board({"a": single}), board({"b": batched}, batch=2)
    score = difference_by_image(two, one, "psnr")
    pairs = (batched[:12] - single).reshape(6, 2).mean(1)
    assert (score.n, score.clusters) == (12, 6)
    assert score.mean == pytest.approx(pairs.mean())
    assert (score.low, score.high) == pytest.approx(t_interval(pairs))
    assert difference_by_image(one, two, "psnr").mean == pytest.approx(-score.mean)


def test_tracks_without_a_common_image_are_not_compared(board, row):
    (one,) = board({"a": np.linspace(15, 25, IMAGES)})
    other = entries_with_rows(row(task=f"t{k}", image=f"other{k}", psnr=20.0 + k) for k in range(IMAGES))
    assert difference_by_image(one, other[0], "psnr") is None


def test_changes_are_corrected_for_all_pairs_that_are_compared(board):
    base = np.linspace(15, 25, IMAGES)
    unit = NOISE[2] - NOISE[2].mean()
    lower = board({"a": base - 1 + unit / stats.sem(unit) / stats.t.isf(0.03 / 2, IMAGES - 1)})  # p = .03
    plain, noisy = board({"a": base}), board({"a": base + NOISE[3] - NOISE[3].mean()})
    (alone,) = changes([(plain, lower)])
    assert alone.verdict == "worse"
    first, second = changes([(plain, lower), (plain, noisy)])
    assert (first.verdict, second.verdict) == (UNSHOWN, UNSHOWN)
    assert first.difference == alone.difference


def test_a_defense_holds_where_no_attack_shows_more_than_the_stated_share(board):
    """0 of 24 has the upper end 1 - 0.025^(1/24) = 0.142 of Clopper and Pearson, 24 of 24 the lower end 0.858."""
    seen, unseen = np.linspace(25, 30, 24), np.linspace(10, 15, 24)
    some = np.where(np.arange(24) < 4, 25.0, 12.0)
    without = board({"a": seen})
    assert holds(board({"a": unseen, "b": unseen - 1}), without) == UNCONTROLLED
    assert holds(board({"a": unseen, "mean_image": unseen - 1 - some / 100}), without) == LEAKS
    assert holds(board({"a": unseen, "mean_image": unseen + 1}), without) == HOLDS
    assert holds(board({"a": unseen, "b": seen}), without) == FAILS
    assert holds(board({"a": unseen, "b": some}), without) == OPEN
    assert holds(board({"a": unseen[:8]}), without) == OPEN
    assert holds(board({"a": np.where(np.arange(24) < 1, 25.0, 12.0)}), without) == OPEN, "1 of 24 is 0 to 21 %"
    assert holds(board({"a": unseen}), board({"a": unseen})) == IDLE
    assert holds(board({"a": unseen}, lpips=None), without) == UNJUDGED
    assert holds(board({"a": unseen}), board({"a": seen[:4]})) == UNTRIED


def test_attacks_that_are_better_behind_a_defense(board):
    """Of three attacks on both tracks one is; a fourth was not tried without the defense."""
    base = np.linspace(15, 25, IMAGES)
    boards = {
        "plain": board({"a": base, "b": base, "c": base}),
        "noisy": board({"a": base + 1 + NOISE[0], "b": base - 1 + NOISE[1], "c": base + NOISE[2], "d": base + 9}),
    }
    ((track, found),) = better_behind([("noise:9", "noisy", "plain")], boards)
    assert (track, found.base.attack, found.other.attack, found.verdict) == ("noisy", "a", "a", BETTER)
    assert found.difference.mean == pytest.approx(1 + NOISE[0].mean())


def test_a_defense_behind_which_every_image_diverged_holds_and_is_not_left_out(board):
    seen, failed = np.linspace(25, 30, 24), np.full(24, 5.0)
    noisy = [*board({"a": failed}, status="diverged"), *board({"mean_image": failed})]
    boards = {"plain": board({"a": seen}), "noisy": noisy}
    (found,) = defended([("noise:9", "noisy", "plain")], boards)
    assert (found.verdict, found.change) == (HOLDS, None)
    assert (found.behind.attacks, found.behind.recognized.mean, found.without.recognized.mean) == (["a"], 0, 1)


def test_batches_that_share_images_say_so_where_they_are_too_few(board, row):
    """Six batches in a ring, each of two images that also stand in the batches beside it, count as one."""
    rows = [
        row(task=f"r{k}", image=f"i{(k + j) % IMAGES}", batch_size=2, psnr=20.0 + k + j)
        for k in range(IMAGES)
        for j in range(2)
    ]
    (one,), (ring,) = board({"a": np.linspace(15, 25, IMAGES)}), entries_with_rows(rows)
    score = difference_by_image(ring, one, "psnr")
    assert (score.clusters, score.batches) == (1, IMAGES)
    assert too_few(score) == "6 batches share images, count as 1 (5 needed): fewer TASKS or more images"
    (two,) = board({"a": np.linspace(15, 25, 8)}, batch=2)
    (single,) = board({"a": np.linspace(15, 25, 8)})
    assert too_few(difference_by_image(two, single, "psnr")) == "too few batches (4; 5 needed)"


def test_batches_of_one_name_on_two_tracks_are_not_one_cluster(row):
    """Each image stands in other batches on the other track, which have the same names in another order."""
    (one,), (two,) = (
        entries_with_rows(row(task=f"t{(k + move) % IMAGES}", image=f"i{k}", psnr=20.0 + k) for k in range(IMAGES))
        for move in (0, 1)
    )
    assert difference_by_image(one, two, "psnr").clusters == IMAGES
