"""`make record`: the tuned run of a method, its rows and its picture, kept with the project."""

import io
from pathlib import Path

import pytest
from PIL import Image

from benchmark.__main__ import main
from benchmark.tracks import record as command
from benchmark.tracks.record import arguments, scored
from benchmark.tracks.track import read
from benchmark.tracks.tuned import Tuned
from leaderboard import record


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RECORD", tmp_path / "record")
    monkeypatch.setattr(command, "TRACKS", tmp_path)


def test_what_is_kept_is_the_tuned_run_and_its_picture(tmp_path, track):
    file = Path(track)
    file.write_text(file.read_text().replace("version: 1", "version: 3"))
    options = {"eta": 0.2, "restarts": 2, "steps": 5}
    Tuned(track=track, version=3, method="ig", options=options, trials=2, score=1.0, default=1.0).write()
    assert main(["record", f"--track={track}", "--method=ig", f"--out={tmp_path / 'out'}", "--devices=1"]) == 0
    ((path, (row,)),) = record.read()
    assert path == tmp_path / "record" / "mine" / "ig.jsonl.gz"
    assert (row["attack"], row["preset"], row["track"], row["split"]) == ("ig", "tuned", track, "test")
    assert (row["gradient_evaluations"], row["track_version"]) == (10, 3)
    picture = Image.open(io.BytesIO(path.with_name("ig.webp").read_bytes()))
    assert picture.size == (32, 64)


def test_a_method_that_was_not_tuned_is_refused_before_anything_runs(tmp_path, track, capsys):
    assert main(["record", f"--track={track}", "--method=ig", f"--out={tmp_path / 'out'}"]) == 2
    assert "has not been tuned" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_has_nothing_to_tune_takes_the_steps_that_the_budget_allows(tmp_path, track, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "without_space.py").write_text("from attacks.ig import IG\n\n\nclass Plain(IG):\n    space = {}\n")
    config = scored(read(track), "without_space.Plain", {})
    assert config.steps * config.make_attack().restarts == 10
    assert f"--steps={config.steps}" in arguments(config, {"track": track})


def test_a_closed_form_is_kept_as_it_is(track):
    config = scored(read(track), "rgap", {})
    assert config.steps is None
    assert not [word for word in arguments(config, {}) if "steps" in word]


def test_a_track_elsewhere_is_not_recorded_in_the_place_of_one_of_the_project(tmp_path, track, capsys):
    elsewhere = tmp_path / "elsewhere" / "mine.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(Path(track).read_text())
    assert main(["record", f"--track={elsewhere}", "--method=rgap", f"--out={tmp_path / 'out'}"]) == 2
    assert "none of the project's tracks" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
