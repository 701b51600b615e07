"""`make verify`: an honest record agrees, and one with other scores, costs, images or settings is found out."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
import yaml

from attacks.ig import IG
from benchmark.__main__ import main
from benchmark.tracks import verify as module
from benchmark.tracks.track import Track, read
from benchmark.tracks.tuned import Tuned
from benchmark.tracks.verify import moved, scaled, scores
from leaderboard import record
from leaderboard.rows import FlatRow

TRACK = {
    "version": 1,
    "tasks": 4,
    "evaluations": 20,
    "tune": {"trials": 2, "tasks": 1},
    "priors": {},
    "options": {"batch": 2, "victim": "lenet"},
}

Change = Callable[[list[FlatRow]], list[FlatRow]]


@pytest.fixture(scope="module")
def track(tmp_path_factory) -> Iterator[str]:
    """On which `ig` was tuned and recorded."""
    folder = tmp_path_factory.mktemp("recorded")
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(TRACK))
    options = {"eta": 0.2, "restarts": 2, "steps": 10}
    Tuned(track=str(file), rule=read(str(file)).rule, method="ig", options=options, score=1.0, default=1.0).write()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIBENCH_OFFLINE", "1")
        patch.setattr(record, "RECORD", folder / "record")
        patch.setattr(Track, "recordable", True)
        assert main(["record", f"--track={file}", "--method=ig", f"--out={folder / 'out'}", "--devices=1"]) == 0
        yield str(file)


@pytest.fixture
def change(track) -> Iterator[Callable[[Change], None]]:
    """Writes other rows into the record, until the end of the test."""
    ((_, _, rows, _),) = record.read()
    path = record.RECORD / "mine" / "ig.jsonl.gz"
    kept = path.read_bytes()
    yield lambda how: record.write("mine", "ig", how(rows), b"") and None
    path.write_bytes(kept)


def verify(track, *more):
    return main(["verify", f"--track={track}", "--method=ig", *more])


def drawn(printed):
    return re.findall(r"^photos-test\S+", printed, re.MULTILINE)


def test_a_run_of_the_same_code_on_the_same_machine_is_identical(track, capsys):
    assert verify(track, "--seed=1") == 0
    printed = capsys.readouterr().out
    assert "agrees: identical" in printed
    assert len(set(drawn(printed))) == 3
    ((_, _, rows, _),) = record.read()
    for task in drawn(printed):
        (line,) = [line for line in printed.splitlines() if line.startswith(task)]
        mean = sum(row["psnr"] for row in rows if row["task"] == task) / 2
        assert [float(number) for number in line.split()[1:]] == [round(mean, 2), round(mean, 2), 0]


@pytest.mark.parametrize("key", ["ssim", "ssim_cropped", "fsim", "mse", "iip", "cost", "label_existence"])
def test_any_other_score_or_cost_that_does_not_follow_from_the_same_images_differs(track, change, key, capsys):
    change(lambda rows: [{**row, key: row[key] - 0.1} if place % 2 else row for place, row in enumerate(rows)])
    assert verify(track, "--sample=1") == 1
    assert f"has the PSNR of the record, and another {key}." in capsys.readouterr().out


@pytest.mark.parametrize("claim", [{"status": "diverged"}, {"degenerate": True}, {"certified": True}], ids=str)
def test_what_else_a_row_says_of_an_image_differs(track, change, claim, capsys):
    change(lambda rows: [{**row, **claim} for row in rows])
    assert verify(track, "--sample=1") == 1
    assert f"has the PSNR of the record, and another {', '.join(claim)}." in capsys.readouterr().out


def test_the_last_digit_of_another_score_is_rounding_and_not_called_identical(track, change, capsys):
    change(lambda rows: [{**row, "ssim": row["ssim"] + 1e-6} for row in rows])
    assert verify(track, "--sample=1") == 0
    printed = capsys.readouterr().out
    assert "agrees: PSNR by +0.00 dB" in printed
    assert "identical, as" not in printed


def test_a_score_that_is_not_computed_here_is_said_to_be_left_out(track, change, capsys):
    change(lambda rows: [{**row, "lpips": 0.5} for row in rows])
    assert verify(track, "--sample=1") == 0
    said = "label_counts, label_existence (not compared: lpips, memory, seconds)."
    assert said in capsys.readouterr().out


def test_the_draw_is_repeated_with_the_seed_that_is_printed(track, capsys):
    assert verify(track, "--sample=2") == 0
    first = capsys.readouterr().out
    seed = re.search(r"drawn with seed (\d+)", first)[1]
    assert verify(track, "--sample=2", f"--seed={seed}") == 0
    assert drawn(capsys.readouterr().out) == drawn(first)


@pytest.mark.parametrize("error", [1.5, -1.5, 80])
def test_scores_that_are_wrong_by_as_much_everywhere_differ(track, change, error, capsys):
    change(lambda rows: [{**row, "psnr": row["psnr"] + error} for row in rows])
    assert verify(track) == 1
    assert "differs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, True),
        ({"torch_version": ""}, True),
        ({"torch_version": "1.0"}, False),
        ({"device": "GPU"}, False),
        ({"attack_digest": "a"}, False),
    ],
)
def test_other_scores_on_the_device_and_by_the_code_of_the_record_are_said(track, change, changes, said, capsys):
    change(lambda rows: [{**row, "psnr": row["psnr"] + 0.5, **changes} for row in rows])
    assert verify(track, "--sample=1") == 0
    assert ("Not identical, though device, code and PyTorch are those of the record" in capsys.readouterr().out) == said


def test_psnr_that_went_from_one_image_of_a_batch_to_another_differs(track, change, capsys):
    change(lambda rows: [{**row, "psnr": row["psnr"] + (20, -20)[place % 2]} for place, row in enumerate(rows)])
    assert verify(track, "--sample=1") == 1
    assert "+0.00 dB in the mean of 1, at most 0.00 dB in a task and 20.00 dB in an image" in capsys.readouterr().out


@pytest.mark.parametrize(("moves", "found"), [(0.1, "differs"), (0.9, "agrees"), (1.4, "undecided")])
def test_a_method_that_rounding_moves_further_may_be_as_far_from_its_record(
    track, change, moves, found, monkeypatch, capsys
):
    monkeypatch.setattr(module, "moved", lambda *_: (moves, moves))
    change(lambda rows: [{**row, "psnr": row["psnr"] + 1.5} for row in rows])
    assert verify(track) == (found == "differs")
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"{found}: ")
    undecided = "A difference of less than 3.2 dB would not be found; give more tasks than SAMPLE=3."
    assert said.endswith(undecided) == (found == "undecided")


def test_an_update_that_is_scaled_keeps_zeros_and_signs(capture):
    observation = capture((0, 1)).observation
    sparse = {name: g.where(g > g.median(), 0) for name, g in observation.update.items()}
    observation = replace(observation, update=sparse)
    for name, longer in scaled(observation, 2).update.items():
        before = observation.update[name]
        assert torch.equal(longer.sign(), before.sign())
        assert not before.any() or not torch.equal(longer, before)
        torch.testing.assert_close(longer, before, rtol=2e-6, atol=0)


def test_how_far_other_rounding_moves_tasks_that_are_attacked_together(capture):
    tasks = [capture((k, k + 1), task=f"t{k}") for k in range(3)]
    attack = IG(steps=5, restarts=1)
    alone = [[of["psnr"] for of in scores(task, attack.run([task.observation]), 0, {})] for task in tasks]
    shifts = [0.0, 3.0, -4.0]
    pairs = [[(0.0, found[0] - by - 1), (0.0, found[1] - by + 1)] for found, by in zip(alone, shifts, strict=True)]
    assert moved(attack, tasks, pairs) == pytest.approx(((25 / 3) ** 0.5, (25 / 3 + 1) ** 0.5), abs=1e-3)
    assert moved(attack, tasks[:1], pairs[:1]) == pytest.approx((0, 1), abs=1e-3)


def test_the_claim_of_a_lower_cost_differs(track, change, capsys):
    change(lambda rows: [{**row, "gradient_evaluations": 20 - place % 2} for place, row in enumerate(rows)])
    assert verify(track) == 1
    assert "takes 20 victim gradients, and the record says 19, 20" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "changes"),
    [
        ("is stale: of version 7 of the track, now 1; run make record", {"track_version": 7}),
        ("is stale: of protocol 2, now", {"protocol": 2}),
        ("is of other images", {"image_digest": "another"}),
        ("has an image without a PSNR", {"psnr": None}),
        ("has a row of ig on no track", {"track": ""}),
        ("has another steps, options than", {"steps": 9, "options": {"plan": {"x": 9}, "eta": 0.2}}),
        ("has another victim_weights than", {"victim_weights": "lenet.pt (0123)"}),
    ],
)
def test_a_record_that_cannot_be_repeated_is_refused_before_anything_runs(track, change, said, changes, capsys):
    change(lambda rows: [{**row, **changes} for row in rows])
    assert verify(track) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert not printed.out


def test_a_record_of_chosen_tasks_alone_is_refused(track, change, capsys):
    change(lambda rows: rows[:-2])
    assert verify(track) == 2
    assert "is of other images" in capsys.readouterr().err


def test_a_record_with_a_line_twice_is_refused(track, change, capsys):
    change(lambda rows: [*rows, rows[0]])
    assert verify(track) == 2
    assert "has an image twice; get the file again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda rows: [{**row, "psnr": str(row["psnr"])} for row in rows], "has a score that is no number"),
        (lambda rows: [{k: v for k, v in row.items() if k != "gradient_evaluations"} for row in rows], "is not a row"),
        (lambda rows: [], "has no row"),
    ],
)
def test_a_damaged_file_is_named(track, change, how, said, capsys):
    change(how)
    assert verify(track) == 2
    assert re.search(f"mine/ig.jsonl.gz.* {said}.*; get the file again", capsys.readouterr().err)


@pytest.mark.parametrize(("method", "said"), [("*", "unknown attack '*'"), ("ig,gias", "takes one method, not ig")])
def test_a_method_is_named_by_one_name(track, method, said, capsys):
    assert main(["verify", f"--track={track}", f"--method={method}"]) == 2
    assert said in capsys.readouterr().err


def test_images_that_are_not_here_are_named_before_anything_runs(track, tmp_path, monkeypatch, capsys):
    ((_, _, rows, _),) = record.read()
    monkeypatch.setattr(record, "RECORD", tmp_path / "record")
    record.write("theirs", "ig", [row | {"track": "theirs"} for row in rows], b"")
    file = tmp_path / "theirs.yaml"
    file.write_text(yaml.safe_dump(TRACK | {"options": {"data": "cifar10"}}))
    assert main(["verify", f"--track={file}", "--method=ig", f"--data_dir={tmp_path / 'data'}"]) == 2
    printed = capsys.readouterr()
    assert f"16 test images of cifar10, of which {tmp_path / 'data'} has 0" in printed.err
    assert not printed.out


def test_changed_code_is_said_and_the_scores_decide(track, change, capsys):
    change(lambda rows: [{**row, "attack_digest": "another", "victim_digest": "another"} for row in rows])
    assert verify(track, "--sample=1") == 0
    printed = capsys.readouterr()
    assert "attack, victim changed since" in printed.err
    assert "agrees: identical" in printed.out


def test_a_draw_of_no_task_is_refused_before_anything_runs(track, capsys):
    assert verify(track, "--sample=0") == 2
    printed = capsys.readouterr()
    assert printed.err.strip() == "benchmark: sample is 0; give 1 or more."
    assert not printed.out


def test_a_method_without_a_record_is_refused_with_those_that_have_one(track, capsys):
    assert main(["verify", f"--track={track}", "--method=gi"]) == 2
    assert re.search("gi is not recorded on .*; recorded are ig\\.", capsys.readouterr().err)


def test_where_no_method_is_recorded_the_tracks_are_named(track, capsys):
    assert main(["verify", "--track=photos-default"]) == 2
    assert "nothing is recorded on photos-default; recorded are mine" in capsys.readouterr().err


def test_without_a_name_any_record_that_is_quick_and_not_stale_is_meant(track, change, capsys):
    assert main(["verify", f"--track={track}", "--sample=1"]) == 0
    assert "ig on " in capsys.readouterr().out
    for changes in ({"seconds": 61}, {"track_version": 7}):
        change(lambda rows, changes=changes: [{**row, **changes} for row in rows])
        assert main(["verify", f"--track={track}"]) == 0
        assert "no record to draw" in capsys.readouterr().out


def test_a_record_is_drawn_of_which_data_and_weights_are_here(track, monkeypatch, tmp_path, capsys):
    (one,) = record.read()
    monkeypatch.setattr(record, "read", lambda *_: [one._replace(track="cifar10-b1")] * 9 + [one._replace(track=track)])
    assert main(["verify", "--sample=1", f"--data-dir={tmp_path}"]) == 0
    assert "ig on " in capsys.readouterr().out


def test_where_nothing_is_recorded_there_is_nothing_to_verify(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(record, "RECORD", tmp_path)
    assert main(["verify"]) == 0
    assert "no record to draw" in capsys.readouterr().out


def test_the_record_is_none_of_a_track_elsewhere_with_the_name_of_a_file(track, monkeypatch, capsys):
    monkeypatch.setattr(Track, "recordable", False)
    assert verify(track) == 2
    assert "none of the project's tracks" in capsys.readouterr().err
