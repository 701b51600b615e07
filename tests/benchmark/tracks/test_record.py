"""`make record`: the tuned run of a method, its rows and its picture, kept with the project."""

import io

import pytest
from PIL import Image

from benchmark.__main__ import main
from benchmark.tracks.tuned import Tuned
from leaderboard import record


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RECORD", tmp_path / "record")


def test_what_is_kept_is_the_tuned_run_and_its_picture(tmp_path, track):
    options = {"eta": 0.2, "restarts": 2, "steps": 5}
    Tuned(track=track, version=1, method="ig", options=options, trials=2, score=1.0, default=1.0).write()
    assert main(["record", f"--track={track}", "--method=ig", f"--out={tmp_path / 'out'}", "--devices=1"]) == 0
    ((path, (row,)),) = record.read()
    assert path == tmp_path / "record" / "mine" / "ig.jsonl.gz"
    assert (row["attack"], row["preset"], row["track"], row["split"]) == ("ig", "tuned", track, "test")
    assert row["gradient_evaluations"] == 10
    picture = Image.open(io.BytesIO(path.with_name("ig.webp").read_bytes()))
    assert picture.size == (32, 64)


def test_a_method_that_was_not_tuned_is_refused_before_anything_runs(tmp_path, track, capsys):
    assert main(["record", f"--track={track}", "--method=ig", f"--out={tmp_path / 'out'}"]) == 2
    assert "has not been tuned" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
