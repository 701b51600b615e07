"""What a sealed attack leaves is scored by itself, whatever it claims."""

import pytest
import torch

from benchmark.sealed.draw import Draw, draw
from benchmark.sealed.judge import against_claims, against_control, against_record, judged, of_rows, results
from benchmark.tracks.track import read
from leaderboard.rows import PROTOCOL
from tests.benchmark.sealed.test_draw import where
from victims.errors import InputError


@pytest.fixture
def drawn(sealed_track, tmp_path):
    return draw(Draw(read(sealed_track), 3, "secret"), where(tmp_path))


def left(task, images, **others):
    return {"images": task.victim.normalize(images), "labels": task.labels, "cost": 0.5, "evaluations": 4} | others


def test_the_truth_scores_100_and_what_is_no_result_as_a_failure(drawn):
    first, _, third = drawn.tasks
    found = [
        left(first, first.images),
        {"error": "PermissionError: out of\n\x1b[2J reach"},
        left(third, third.images, cost=float("nan")),
    ]
    one, two, three = judged(drawn, found)
    assert (one["status"], one["psnr"], one["claimed_cost"], one["claimed_evaluations"]) == ("ok", 100, 0.5, 4)
    assert (two["status"], two["psnr"]) == ("PermissionError: out of [2J reach", 0)
    assert (three["status"], three["psnr"], three["claimed_cost"]) == ("diverged", 0, None)
    mean = drawn.config.make_data("train").batch(range(192))[0].mean(0)
    assert one["control"] == pytest.approx(float(-10 * (first.images[0] - mean).square().mean().log10()), abs=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": torch.zeros(1, 3, 8, 8)},
        {"images": torch.zeros(1, 3, 32, 32, dtype=torch.int64)},
        {"images": "truth"},
        {"images": torch.zeros(1, 3, 32, 32, device="meta")},
        {"images": torch.zeros(1, 3, 32, 32).to_sparse()},
        {"images": torch.full((1, 3, 32, 32), float("nan"))},
        {"images": torch.full((1, 3, 32, 32), 1e300, dtype=torch.float64)},
        {"evaluations": 4.0},
        {"evaluations": -5},
        {"cost": "0"},
    ],
)
def test_results_of_another_form_are_failures(drawn, wrong):
    task = drawn.tasks[0]
    rows = judged(drawn, [left(task, task.images) | wrong] * 3)
    assert [row["psnr"] for row in rows] == [0, 0, 0]
    assert "ok" not in {row["status"] for row in rows}


@pytest.mark.parametrize("content", [None, {}, {"tasks": [{}]}, {"tasks": [1, 2]}, {"tasks": "ab"}])
def test_a_file_without_a_result_for_each_task_is_refused(content):
    with pytest.raises(InputError, match="each of 2 tasks"):
        results(content, 2)


def test_a_claimed_cost_is_compared_with_that_of_the_reconstruction():
    rows = [{"task": f"task-{n}", "claimed_cost": cost} for n, cost in enumerate((0.2, 0.2, 0.2001, None))]
    computed = [{"cost": 0.2, "of_mean_color": 1.0}, {"cost": 0.3, "of_mean_color": 1.0}]
    computed += [{"cost": 0.2, "of_mean_color": 1.0}, {}]
    said = "computed again for 3 of 4 tasks: task-1 claims 0.2 and costs 0.3"
    assert against_claims(rows, computed) == (True, said)
    assert against_claims(rows[2:], computed[2:]) == (False, "computed again for 1 of 2 tasks: as claimed")
    texts = [{"cost": "0", "of_mean_color": 1.0}, {"cost": 0.2, "of_mean_color": float("inf")}, {"error": "no\x1b"}]
    said = "computed again for 0 of 3 tasks: task-0 has none: None; task-1 has none: None; task-2 has none: no"
    assert against_claims(rows[:3], texts) == (True, said)
    assert against_claims(rows, [{}] * 4) == (False, "computed again for 0 of 4 tasks")


def rows(*values, **others):
    return [
        {"task": f"task-{n}", "image": f"image {n}", "psnr": value, "control": 12.0 + n % 2} | others
        for n, value in enumerate(values)
    ]


KEPT = {"protocol": PROTOCOL, "track_version": 1}


def test_the_verdicts():
    high, low = rows(20, 21, 22, 20, 21, 22, **KEPT), rows(10, 11, 12, 10, 11, 12)
    below, words = against_record(low, high, 1)
    assert below
    assert words == "-10.00 dB [-11.15, -8.85] from the record: it does not hold on new images"
    assert against_record(high, high, 1) == (False, "+0.00 dB [-1.15, +1.15] from the record: no difference shown")
    assert against_record(rows(21), high, 1)[1].startswith("+0.00 dB from the record, no verdict")
    below, words = against_record(rows(*range(60, 66)), high, 1)
    assert not below
    assert "above it" in words
    for new, old, version, said in ((low, high, 2, "stale"), (low, [], 1, "no record"), (low[:3], high, 1, "too few")):
        below, words = against_record(new, old, version)
        assert not below
        assert said in words
    assert against_control(high) == "better than the mean image"
    assert against_control(low) == "no better than the mean image"
    assert "too few" in against_control(high[:3])


def test_a_drop_is_found_though_the_two_intervals_overlap():
    new, old = rows(*[15.5, 17.5, 19.5, 21.5] * 2), rows(*[18, 20, 22, 24] * 6, **KEPT)
    assert of_rows(new, "psnr").high > of_rows(old, "psnr").low
    assert against_record(new, old, 1)[0]


def test_tasks_that_share_an_image_count_as_one():
    same = [row | {"image": f"image {n // 4}"} for n, row in enumerate(rows(*range(20, 28)))]
    assert of_rows(same, "psnr").clusters == 2
    assert "8 batches share images, count as 2" in against_control(same)
