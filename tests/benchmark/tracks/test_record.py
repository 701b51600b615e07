"""`make record`: the tuned run of a method, its rows and its picture, kept with the project."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from benchmark.__main__ import main
from benchmark.names import known
from benchmark.tracks import record as command
from benchmark.tracks import track as module
from benchmark.tracks.record import arguments, refused, scored
from benchmark.tracks.track import read
from benchmark.tracks.tuned import Tuned
from leaderboard import record
from victims.errors import InputError

RECORD, TRACKS = record.RECORD, module.TRACKS  # of the project


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RECORD", tmp_path / "record")
    monkeypatch.setattr(module, "TRACKS", tmp_path)


def test_what_is_kept_is_the_tuned_run_and_its_picture(tmp_path, track):
    file = Path(track)
    file.write_text(file.read_text().replace("version: 1", "version: 3"))
    options = {"eta": 0.2, "restarts": 2, "steps": 5}
    Tuned(track=track, rule=read(track).rule, method="ig", options=options, score=1.0, default=1.0).write()
    assert main(["record", f"--track={track}", "--method=ig", f"--out={tmp_path / 'out'}", "--devices=1"]) == 0
    control = record.read_control("mine")
    assert [(row["control"], row["track"], row["gradient_evaluations"]) for row in control.rows] == [
        ("mean_image", track, 0)
    ]
    (kept,) = record.read()
    path, (row,) = tmp_path / "record" / "mine" / "ig.jsonl.gz", kept.rows
    assert (row["attack"], row["preset"], row["track"], row["split"]) == ("ig", "tuned", track, "test")
    assert (row["gradient_evaluations"], row["track_version"]) == (10, 3)
    picture = Image.open(io.BytesIO(path.with_name("ig.webp").read_bytes()))
    assert picture.size == (32, 64)


def test_a_run_that_leaves_the_budget_does_not_replace_the_record(tmp_path, track, capsys):
    options = {"eta": 0.2, "restarts": 2, "steps": 5}
    tuned = Tuned(track=track, rule=read(track).rule, method="ig", options=options, score=1.0, default=1.0)
    tuned.write()
    command = ["record", f"--track={track}", "--method=ig", f"--out={tmp_path / 'out'}", "--devices=1"]
    assert main(command) == 0
    before = (tmp_path / "record" / "mine" / "ig.jsonl.gz").read_bytes()
    steps = 1 + read(track).evaluations // 2
    replace(tuned, options={**options, "steps": steps}).write()
    capsys.readouterr()
    assert main(command) == 2
    assert f"ig took {2 * steps} victim gradients of a task, and {track} allows" in capsys.readouterr().err
    assert (tmp_path / "record" / "mine" / "ig.jsonl.gz").read_bytes() == before


def test_methods_behind_one_that_leaves_the_budget_are_kept(tmp_path, track, capsys):
    found = read(track)
    for method, steps in (("ig", 1 + found.evaluations // 2), ("dlg", 5)):
        options = {"eta": 0.2, "restarts": 2, "steps": steps}
        Tuned(track=track, rule=found.rule, method=method, options=options, score=1.0, default=1.0).write()
    assert main(["record", f"--track={track}", "--method=ig,dlg", f"--out={tmp_path / 'out'}", "--devices=1"]) == 2
    assert "ig took" in capsys.readouterr().err
    kept = {path.name for path in (tmp_path / "record" / "mine").glob("*.jsonl.gz")}
    assert "dlg.jsonl.gz" in kept
    assert "ig.jsonl.gz" not in kept


def test_a_method_that_was_not_tuned_is_refused_before_anything_runs(tmp_path, track, capsys):
    assert main(["record", f"--track={track}", "--method=ig", f"--out={tmp_path / 'out'}"]) == 2
    assert "has not been tuned" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("why", "code"), [("refused", 2), ("exit code 3", 1)])
def test_of_a_run_that_failed_nothing_is_kept(why, code, tmp_path, track, monkeypatch, capsys):
    options = {"eta": 0.2, "restarts": 1, "steps": 5}
    Tuned(track=track, rule=read(track).rule, method="ig", options=options, score=1.0, default=1.0).write()
    monkeypatch.setattr(command, "keep_control", lambda *_: None)
    monkeypatch.setattr(command, "run_cells", lambda cells: dict.fromkeys(cells, why))
    assert main(["record", f"--track={track}", "--method=ig", f"--out={tmp_path / 'out'}", "--devices=1"]) == code
    printed = capsys.readouterr()
    assert f"no result from 1 of 1 cells: ig ({why})." in printed.err
    assert not printed.out
    assert not list((tmp_path / "record").rglob("ig*"))


def test_what_has_nothing_to_tune_takes_the_steps_that_the_budget_allows(tmp_path, track, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "without_space.py").write_text("from attacks.ig import IG\n\n\nclass Plain(IG):\n    space = {}\n")
    config = scored(read(track), "without_space.Plain", {})
    assert config.steps * config.make_attack().restarts == 10
    assert f"--steps={config.steps}" in arguments(config, {"track": track})


def with_options(track, **options):
    """A track of the same folder with other options."""
    file = Path(track).with_name("other.yaml")
    file.write_text(yaml.safe_dump(yaml.safe_load(Path(track).read_text()) | {"options": {"batch": 1, **options}}))
    return read(str(file))


def test_a_closed_form_is_kept_as_it_is(track):
    config = scored(with_options(track, victim="fcn3", defense="none"), "rgap", {})
    assert config.steps is None
    assert not [word for word in arguments(config, {}) if "steps" in word]


def test_a_closed_form_that_is_not_made_for_the_track_is_refused_before_anything_runs(track):
    with pytest.raises(InputError, match="rgap does not support defenses"):
        scored(read(track), "rgap", {})


def test_of_all_methods_those_that_the_track_does_not_take_are_left_out_with_the_reason(tmp_path, track, capsys):
    options = {"eta": 0.2, "restarts": 1, "steps": 2}
    Tuned(track=track, rule=read(track).rule, method="ig", options=options, score=1.0, default=1.0).write()
    assert main(["record", f"--track={track}", "--method=all", f"--out={tmp_path / 'out'}", "--devices=1"]) == 0
    assert [each.method for each in record.read()] == ["ig"]
    left_out = dict(re.findall(r"^left out (\w+): (.*)$", capsys.readouterr().out, re.MULTILINE))
    assert left_out.keys() == known("attack").keys() - {"ig"}
    assert left_out["gias"] == f"gias has not been tuned on the track {track}; run make tune TRACK={track} METHOD=gias."
    assert left_out["pnp"].endswith("has no denoiser, which pnp needs; name another with --track.")
    assert left_out["rgap"].startswith("rgap does not support defenses")
    why = record.refused("mine")
    assert why["rgap"].startswith("rgap does not support defenses")
    assert why["pnp"] == "the track has no denoiser, which pnp needs"
    assert not why.keys() & {"ig", "gias"}, "of what can be used nothing is kept"


def test_why_a_method_cannot_be_used_is_kept_until_it_can(tmp_path, track, capsys):
    assert main(["record", f"--track={track}", "--method=rgap", f"--out={tmp_path / 'out'}"]) == 2
    assert "rgap does not support defenses" in capsys.readouterr().err
    assert [*record.refused("mine")] == ["rgap"]
    record.write_refused("mine", refused(with_options(track, victim="fcn3", defense="none"), "rgap", {}))
    assert record.refused("mine") == {}


def test_no_method_that_is_unknown_is_kept_as_refused(tmp_path, track):
    assert main(["record", f"--track={track}", "--method=igg", f"--out={tmp_path / 'out'}"]) == 2
    assert record.refused("mine") == {}


def test_what_the_record_says_of_methods_that_cannot_be_used_is_so():
    track = read(str(TRACKS / "photos-default.yaml"))
    there = {file.name.partition(".")[0] for file in (RECORD / "photos-default").iterdir()}
    kept = yaml.safe_load((RECORD / "photos-default" / "refused.yaml").read_text())
    found = refused(track, ",".join(known("attack").keys() - there), {})
    assert kept == {method: why for method, why in found.items() if why}


def test_a_track_elsewhere_is_not_recorded_in_the_place_of_one_of_the_project(tmp_path, track, capsys):
    elsewhere = tmp_path / "elsewhere" / "mine.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(Path(track).read_text())
    assert main(["record", f"--track={elsewhere}", "--method=rgap", f"--out={tmp_path / 'out'}"]) == 2
    assert "none of the project's tracks" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
