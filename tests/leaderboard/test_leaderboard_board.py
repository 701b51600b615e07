import random
from itertools import permutations
from math import isnan, nan

import pytest

from leaderboard.board import comparable, entries, entries_with_rows, telling
from leaderboard.differences import difference


def test_two_runs_of_the_same_command_count_once(row):
    rows = [row(task=task, image=image, psnr=psnr) for task, image, psnr in (("t0", "a", 10), ("t1", "b", 20))]
    (entry,) = entries([*rows, *[dict(r, seconds=9.0, code="later") for r in rows[:1]]])
    assert (entry.n, entry.tasks) == (2, 2)
    assert entry.scores["psnr"].mean == 15


def test_seeds_pool_but_the_same_images_stay_one_cluster(row):
    (entry,) = entries([row(seed=seed, psnr=10 + seed) for seed in (0, 1)])
    assert (entry.n, entry.tasks) == (2, 2)
    found = entry.scores["psnr"]
    assert (found.mean, found.n, found.clusters) == (10.5, 2, 1)
    assert isnan(found.low)
    assert isnan(found.high)  # one batch has no interval


def test_the_images_of_one_batch_give_no_interval(row):
    (entry,) = entries([row(image="a", psnr=10), row(image="b", psnr=12)])
    assert entry.scores["psnr"].mean == 11
    assert isnan(entry.scores["psnr"].low)


@pytest.mark.parametrize("missing", [None, nan])
def test_a_missing_value_is_left_out_of_its_metric_alone(row, missing):
    rows = [row(image="a", lpips=missing, lpips_backbone="no weights"), row(image="b", lpips=0.3)]
    (entry,) = entries(rows)
    assert (entry.scores["lpips"].mean, entry.scores["lpips"].n) == (0.3, 1)
    assert entry.scores["psnr"].n == entry.n == 2


def test_no_lpips_at_all_is_none_with_its_reason(row):
    (entry,) = entries([row(lpips=None, lpips_backbone="no weights")])
    assert entry.scores["lpips"] is None
    assert entry["lpips_backbone"] == "no weights"


def test_a_run_with_more_backbones_fills_in_what_another_lacks(row):
    more = row(higher_is_better={**row()["higher_is_better"], "lpips_alex": False}, lpips_alex=0.2)
    for order in ([more, row()], [row(), more]):
        (entry,) = entries(order)
        assert (entry.n, entry.scores["lpips_alex"].mean) == (1, 0.2)


def test_a_second_run_fills_in_the_lpips_of_the_first(row):
    with_lpips, without = row(), row(lpips=None, lpips_backbone="no weights")
    for order in ([with_lpips, without], [without, with_lpips]):
        (entry,) = entries(order)
        assert (entry.n, entry.scores["lpips"].n, entry["lpips_backbone"]) == (1, 1, "squeeze")


@pytest.mark.parametrize("order", list(permutations(("squeeze", "alex", "vgg"))))
def test_runs_that_differ_in_the_lpips_option_are_one_entry_with_the_scores_of_all(row, order):
    def run(name, value, seconds):
        """Of `python -m benchmark` with LPIPS=name: the squeeze column is named `lpips`."""
        metric = "lpips" if name == "squeeze" else f"lpips_{name}"
        plain = {key: value for key, value in row(seconds=seconds).items() if key != "lpips"}
        directions = {key: higher for key, higher in row()["higher_is_better"].items() if key != "lpips"}
        backbone = name if name == "squeeze" else "none: not asked for"
        added = {"higher_is_better": {**directions, metric: False}, "lpips_backbone": backbone}
        return [plain | added | {"image": image, metric: value} for image in "ab"]

    runs = {"squeeze": run("squeeze", 0.25, 9.0), "alex": run("alex", 0.5, 1.0), "vgg": run("vgg", 0.75, 5.0)}
    (entry,) = entries([line for name in order for line in runs[name]])
    found = [entry.scores[metric] for metric in ("lpips", "lpips_alex", "lpips_vgg")]
    assert [(score.mean, score.n) for score in found] == [(0.25, 2), (0.5, 2), (0.75, 2)]
    assert (entry.n, entry["lpips_backbone"], entry.recognized.mean) == (2, "squeeze", 1)
    assert entry.seconds == 9  # of the run with the column `lpips`, in any order


def test_of_a_score_in_several_runs_one_is_taken_in_any_order(row):
    rows = [row(image=image, psnr=psnr, seconds=seconds) for image in "ab" for psnr, seconds in ((20, 1), (22, 3))]
    assert [entries(order)[0].psnr.mean for order in permutations(rows)] == [22] * 24


def test_two_backbones_are_never_averaged(row):
    (entry,) = entries([row(image="a"), row(image="b", lpips_backbone="alex")])
    assert entry.scores["lpips"] is None
    assert entry.scores["ssim"].n == 2


def test_diverged_images_are_in_the_mean(row):
    (entry,) = entries([row(image="a", psnr=20), row(image="b", psnr=0, status="diverged", cost=None)])
    assert (entry.diverged, entry.n, entry.scores["psnr"].mean) == (1, 2, 10)


def test_seconds_and_evaluations_are_per_task_not_per_image(row):
    rows = [row(task="t0", image=image, seconds=1.0, gradient_evaluations=10) for image in "abc"]
    (entry,) = entries([*rows, row(task="t1", seconds=3.0, gradient_evaluations=30)])
    assert (entry.seconds, entry.gradient_evaluations) == (2, 20)


@pytest.mark.parametrize(
    "change",
    [
        {"options": {"tv": 0.2}}, {"prior": "dcgan"}, {"prior_trained_on": "faces"}, {"victim_weights": "trained"},
        {"victim_mode": "train"}, {"precision": "float64"}, {"rounds": 4}, {"between": 9},
        {"labels": "inferred"}, {"bn": "exact"}, {"restarts": 4}, {"protocol": 0},
        {"control": "shuffled_update"}, {"adapt": True}, {"preset": "fast"},
    ],
)  # fmt: skip
def test_what_changes_a_result_is_its_own_entry(row, change):
    assert len(entries([row(), row(**change)])) == 2


def test_options_in_another_order_are_the_same(row):
    assert len(entries([row(options={"tv": 1, "lr": 2}), row(options={"lr": 2, "tv": 1})])) == 1


def test_the_mean_image_counts_once_whichever_attack_wrote_it(row):
    control = {"control": "mean_image", "psnr": 11.0}
    rows = [row(**control), row(**control, attack="gias", prior="dcgan", defense="clip"), row(psnr=20), row(size=64)]
    (mean_image,) = (entry for entry in entries(rows) if entry.control == "mean_image")
    assert (mean_image.attack, mean_image.n) == ("mean image (control)", 1)
    assert (mean_image["prior"], mean_image["restarts"], mean_image["defense"]) == (None, None, None)
    assert mean_image["victim_mode"] == "eval"


def test_controls_stand_among_the_attacks_of_their_setting_by_psnr(row):
    rows = [
        row(psnr=8, control="shuffled_update"),
        row(psnr=11, control="mean_image"),
        row(psnr=20),
        row(psnr=9, attack="dlg"),
        row(psnr=30, attack="gias", size=64),
        row(psnr=30, attack="gias", size=128),
    ]
    random.Random(0).shuffle(rows)
    assert [(entry["size"], entry.attack) for entry in entries(rows)] == [
        (32, "ig"),
        (32, "mean image (control)"),
        (32, "dlg"),
        (32, "ig, shuffled update (control)"),
        (64, "gias"),
        (128, "gias"),
    ]


def by_attack(rows):
    return sorted(entries_with_rows(rows), key=lambda pair: pair[0].attack)


def test_paired_difference_by_hand(row):
    ours = [row(attack="a", task=t, image=i, psnr=p) for t, i, p in [("t0", "x", 12), ("t0", "y", 16), ("t1", "z", 9)]]
    theirs = [
        row(attack="b", task=t, image=i, psnr=p) for t, i, p in [("t0", "x", 10), ("t1", "z", 5), ("t2", "w", 99)]
    ]
    rows = [*ours, *theirs, row(attack="a", task="t2", image="w", seed=1, psnr=0)]
    a, b = by_attack(rows)
    # Shared: (0, t0, x) with 12 - 10 and (0, t1, z) with 9 - 5; the standard error is 1, and t of one degree 12.706.
    assert difference(a, b, "psnr")[:5] == pytest.approx((3, 3 - 12.706, 3 + 12.706, 2, 2), rel=1e-4)
    assert difference(b, a, "psnr")[:5] == pytest.approx((-3, -3 - 12.706, -3 + 12.706, 2, 2), rel=1e-4)


def test_the_mean_image_has_no_seed_and_is_compared_with_every_one(row):
    ours = [row(attack="a", task=t, image=t, seed=seed, psnr=p) for seed, t, p in [(1, "t0", 12), (2, "t1", 17)]]
    mean = [row(control="mean_image", task=t, image=t, psnr=10) for t in ("t0", "t1")]
    board = {entry.control: (entry, rows) for entry, rows in entries_with_rows([*ours, *mean])}
    assert difference(board["none"], board["mean_image"], "psnr")[:1] == (4.5,)
    assert difference(board["mean_image"], board["none"], "psnr").n == 2


def test_paired_difference_without_shared_values_is_none(row):
    rows = [row(attack="a", task="t0"), row(attack="b", task="t1"), row(attack="c", task="t0", lpips=None)]
    a, b, c = by_attack(rows)
    assert difference(a, b, "psnr") is None
    assert difference(a, c, "lpips") is None
    assert difference(a, c, "psnr").n == 1


def test_lpips_of_two_backbones_is_never_subtracted(row):
    rows = [row(attack="a"), row(attack="b", lpips_backbone="alex")]
    assert difference(*entries_with_rows(rows), "lpips") is None


def test_pairs_of_a_mean_image_written_by_two_attacks(row):
    control = {"control": "mean_image", "psnr": 10.0}
    rows = [row(psnr=12), row(**control), row(**control, attack="gias", defense="clip")]
    mean_image, attack = sorted(entries_with_rows(rows), key=lambda pair: pair[0].control)
    found = difference(attack, mean_image, "psnr")
    assert (found.mean, found.n) == (2, 1)


def test_comparable_asks_for_setting_and_protocol(row):
    base, *others = (
        entries([row(**change)])[0]
        for change in ({}, {"attack": "gias", "restarts": 9}, {"defense": "clip"}, {"protocol": 0})
    )
    assert [comparable(base, other) for other in others] == [True, False, False]


def test_order_of_rows_does_not_matter(row):
    source = random.Random(3)
    rows = [row(task=f"t{i // 2}", image=str(i % 2), psnr=source.gauss(15, 2)) for i in range(20)]
    expected = entries(rows)
    source.shuffle(rows)
    assert entries(rows) == expected


def test_batches_that_share_an_image_are_no_independent_batches(row):
    """The same batch three times, by its images, and a fourth batch: two clusters, as if it were there once."""
    one = [row(task="t0", image=image, psnr=psnr) for image, psnr in (("a", 10), ("b", 12))]
    again = [each | {"task": task} for task in ("t1", "t2") for each in one]
    other = row(task="t9", image="c", psnr=30)
    (lone,) = entries(one)
    (thrice,) = entries([*one, *again])
    assert isnan(lone.psnr.low)
    assert isnan(thrice.psnr.low)
    assert isnan(thrice.best_in_batch.low)
    assert (thrice.n, thrice.tasks, thrice.psnr.mean) == (6, 3, 11)
    (two,) = entries([*one, *again, other])
    assert (two.psnr.n, two.psnr.clusters) == (7, 2)
    gias = [{**each, "attack": "gias", "psnr": each["psnr"] + 1} for each in [*one, *again, other]]
    board = entries_with_rows([*one, *again, other, *gias])
    assert difference(*board, "psnr").clusters == 2


def test_scores_keep_to_the_range_that_their_rows_name(row):
    """0.5 ± 12.7 * 0.4 without the range."""
    iip = {"t0": 0.9, "t1": 0.1}
    ours = [row(task=t, image=t, iip=value, own=value) for t, value in iip.items()]
    named = {"higher_is_better": {"iip": True, "own": True}, "ranges": {"iip": [0, 1], "own": [0, None]}}
    theirs = [row(attack="gias", task=t, image=t, iip=0.0, own=0.0) for t in iip]
    rows = [each | named for each in [*ours, *theirs]]
    (ig, _), _ = board = sorted(entries_with_rows(rows), key=lambda pair: -pair[0].scores["iip"].mean)
    assert ig.scores["iip"][:3] == (0.5, 0, 1)
    assert ig.scores["own"].low == 0
    assert ig.scores["own"].high == pytest.approx(0.5 + 12.706 * 0.4, rel=1e-4)
    assert difference(*board, "iip")[:3] == (0.5, -1, 1)
    assert difference(*board, "own").low == pytest.approx(0.5 - 12.706 * 0.4, rel=1e-4)


def test_other_contents_of_the_same_name_are_a_line_of_their_own_that_nothing_is_compared_with(row):
    old, new = (
        [row(victim_digest=digest, image=image, psnr=psnr) for image in "ab"]
        for digest, psnr in (("1", 20.0), ("2", 30.0))
    )
    gias = row(attack="gias", victim_digest="2", attack_digest="x")
    board = entries([*old, *new, gias])
    assert sorted((entry.attack, entry["victim_digest"], entry.n) for entry in board) == [
        ("gias", "2", 1),
        ("ig", "1", 2),
        ("ig", "2", 2),
    ]
    alike = {a["victim_digest"] for a in board for b in board if a.attack != b.attack and comparable(a, b)}
    assert alike == {"2"}


def test_digests_are_shown_where_nothing_else_tells_entries_apart(row):
    def told(*changes):
        return telling(entry.fields for entry in entries([row(**change) for change in changes]))

    assert told({"attack_digest": "1"}, {"attack_digest": "2"}) == {"attack_digest"}
    assert told({"attack_digest": "1"}, {"attack_digest": "2", "attack": "gias"}) == set()
    assert told({"mean": "0", "std": "1"}, {"mean": "0.5", "std": "1"}) == {"mean"}
    assert told({"mean": "0"}, {"mean": "0.5", "data": "cifar10"}) == set()  # every data set has its own
    assert told({"victim_digest": "1", "attack_digest": "1"}, {"attack_digest": "1", "victim_digest": "2"}) == {
        "victim_digest"
    }


def test_a_mean_image_of_other_training_images_is_another_one(row):
    mean = {"control": "mean_image", "victim": "convnet"}
    rows = [row(**mean, attack_digest=digest, attack=attack) for digest in "12" for attack in ("ig", "gias")]
    assert [entry["attack_digest"] for entry in entries(rows)] == ["1", "2"]


@pytest.mark.parametrize(
    ("key", "order"),
    [
        ("epochs_trained", ["0", "0.5", "3", "100steps", "1000steps"]),
        ("defense", ["clipping:1", "noise:0.05", "noise:0.5", "noise:10", "none"]),
        ("batch_size", [1, 4, 16]),
    ],
)
def test_settings_are_in_the_order_of_their_numbers(row, key, order):
    found = entries([row(**{key: value}) for value in reversed(order)])
    assert [entry[key] for entry in found] == order
