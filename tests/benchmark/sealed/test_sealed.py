"""Attacks that look at the truth score 100 dB in a run, and as noise where they are sealed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from benchmark.__main__ import main
from benchmark.config import Config
from benchmark.names import ROOT
from benchmark.run import run
from benchmark.scoring import gallery, judge
from benchmark.scoring.picture import png
from benchmark.sealed import landlock, sealed
from benchmark.sealed.attack import confined
from benchmark.sealed.draw import Draw, draw
from benchmark.sealed.observations import load
from benchmark.sealed.sealed import judge as judge_all
from benchmark.sealed.sealed import recorded, time_limit
from benchmark.tracks.track import Track, read
from benchmark.tracks.tuned import Tuned
from leaderboard import record
from tests.benchmark.sealed.conftest import TRACK
from tests.benchmark.sealed.test_draw import where
from victims.data.photos import Photos
from victims.errors import InputError

WAYS = ("Trainer", "Collector", "Frames", "TaskName", "Disk", "Pictures", "Judge", "Gallery")


@pytest.fixture
def track(sealed_track, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr(record, "RECORD", tmp_path / "record")
    monkeypatch.setattr(Track, "recordable", True)
    return sealed_track


def tuned(track, method, **options):
    Tuned(track=track, rule=read(track).rule, method=method, options=options, score=1.0, default=1.0).write()


def scores(folder):
    (file,) = folder.rglob("sealed/*/scores.json")
    return json.loads(file.read_text())


@pytest.mark.parametrize("way", WAYS)
def test_a_run_does_not_stop_an_attack_that_looks_at_the_truth(way, track, tmp_path, monkeypatch):
    """This is what the sealed run is for; here only the attributes of what an attack gets are without the truth."""
    monkeypatch.setattr(gallery, "SMALL", 10)  # as of a data set that has more images than photos
    monkeypatch.setattr(judge, "score", judge.score)  # put back afterwards
    small = {"tasks": 2, "restarts": 1, "devices": 1, "wandb": "off", "out": tmp_path, **TRACK["options"]}
    if way in ("Pictures", "Gallery"):
        run(Config(attack="ig", steps=1, **small))  # anything before
    rows, _ = run(Config(attack=f"cheats.{way}", set=[f"where={tmp_path}"], **small)).read_rows()
    assert min(row["psnr"] for row in rows) > 99


def test_sealed_it_finds_nothing(track, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gallery, "SMALL", 10)
    out, data = where(tmp_path)["out"], Photos(split="test")
    gallery.read_split(data, out, "")
    (out / "truth").mkdir()
    for name, (image, _) in zip(data.ids, map(data.__getitem__, range(len(data))), strict=True):
        (out / "truth" / f"{name}.png").write_bytes(png(image))
    tuned(track, "cheats.All", where=str(out), restarts=1, steps=2)
    options = ["--track", track, "--method=cheats.All", f"--sample={len(WAYS)}", "--secret=ab12", f"--out={out}"]
    small = {"tasks": 5, "restarts": 1, "devices": 1, "wandb": "off", "out": tmp_path, **TRACK["options"]}
    rows, _ = run(Config(attack="cheats.Disk", **small)).read_rows()
    record.write("mine", "cheats.All", [row | {"attack": "cheats.All", "track": "mine"} for row in rows], b"")
    sys.modules.pop("cheats", None)
    assert main(["sealed", "run", *options]) == 1
    assert "cheats" not in sys.modules  # where it could change the judge
    rows = scores(tmp_path)["rows"]
    assert [row["task"] for row in rows] == [f"task-{number}" for number in range(8)]
    assert all(row["status"] == "ok" and row["psnr"] < 40 for row in rows)
    said = capsys.readouterr().out
    assert "no better than the mean image" in said
    assert f"limits   an audit hook {'and the kernel' if landlock.version() else 'alone'}" in said
    assert "computed again for 8 of 8 tasks: as claimed" in said
    assert "from the record: it does not hold on new images" in said


def test_a_track_elsewhere_is_not_compared_with_the_record_of_one_with_its_file_name(sealed_track, tmp_path):
    file = tmp_path / "photos-default.yaml"
    file.write_text(Path(sealed_track).read_text())
    assert recorded(read("photos-default"), "ig")
    assert not recorded(read(str(file)), "ig")


def test_sealed_verify_is_the_command_of_a_sealed_run():
    words = ("make", "-n", "verify", "TRACK=photos-default", "METHOD=ig")
    for given, command in (("SEALED=yes", "sealed run"), ("SEALED=no", "verify"), ("SEALED=", "verify")):
        ended = subprocess.run([*words, "SAMPLE=8", given], cwd=ROOT, capture_output=True, text=True, check=True)
        assert f"-m benchmark {command} --method" in ended.stdout
        assert "--sample" in ended.stdout
        assert "--sealed" not in ended.stdout


def test_nothing_of_the_users_own_runs_before_the_limits(sealed_track, tmp_path, monkeypatch):
    draw(Draw(read(sealed_track), 1, "a"), where(tmp_path), tmp_path / "observations.pt")
    for name in ("sitecustomize", "usercustomize", "torch", "benchmark"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "mine" / "plugged.py").write_text("from attacks.dlg import DLG as Method\nMethod.space = {}")
    monkeypatch.syspath_prepend(tmp_path / "mine")
    left = confined(tmp_path / "observations.pt", "plugged.Method", tmp_path)
    assert "images" in left["tasks"][0]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import time; time.sleep(60)", "took more than 1 s"),
        ("import os; os.mkfifo('results.pt')", "not a regular file"),
        ("import os; os.symlink('observations.pt', 'results.pt')", "not a regular file"),
        ("import os; os.write(2, b'\\x1b[2J\\xff psnr'); os._exit(3)", "[2J\ufffd psnr"),
        ("pass", "No such file"),
    ],
)
def test_a_process_that_leaves_no_file_is_refused_in_one_line(script, said, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark.sealed.attack.START", script)
    (tmp_path / "observations.pt").write_bytes(b"")
    with pytest.raises(InputError) as refused:
        confined(tmp_path / "observations.pt", "ig", tmp_path, limit=1 if "sleep" in script else 60)
    assert said in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_file_of_another_form_has_no_tasks(tmp_path, monkeypatch):
    torch.save([1, 2], tmp_path / "observations.pt")
    monkeypatch.setattr("benchmark.sealed.attack.START", "import os; os.rename('observations.pt', 'results.pt')")
    assert confined(tmp_path / "observations.pt", "ig", tmp_path)["tasks"] is None


def test_observations_of_another_form_are_refused(tmp_path, capsys):
    for content in ([1, 2], {"tasks": []}):
        torch.save(content, tmp_path / "observations.pt")
        assert main(["sealed", "attack", str(tmp_path), "--method=ig"]) == 2
        assert "is not what sealed draw writes" in capsys.readouterr().err


def test_scores_are_printed_whatever_happens_where_costs_are_computed(track, tmp_path, monkeypatch, capsys):
    what, given = Draw(read(track), 1, "a"), where(tmp_path)
    drawn = draw(what, given)
    found = {"images": drawn.tasks[0].images, "labels": "none", "cost": 1.0, "evaluations": 1}
    for again in ([1], None, {"tasks": []}):
        monkeypatch.setattr(sealed, "confined", lambda *_, again=again: again)
        assert judge_all(what, drawn, tmp_path / "none", "ig", {"tasks": [found]}, given) == 1
        said = capsys.readouterr().out
        assert "not computed again" in said
        assert "psnr" in said
        assert "nan" not in said


@pytest.mark.parametrize("method", ["igg", "nowhere.Method", ".x"])
def test_an_unknown_method_is_refused_before_anything_is_drawn(method, track, monkeypatch, capsys):
    monkeypatch.setattr(sealed, "draw", None)
    assert main(["sealed", "run", "--track", track, f"--method={method}"]) == 2
    assert method.partition(".")[0] in capsys.readouterr().err
    assert main(["sealed", "run", "--track", track, "--method=ig", "--sample=0"]) == 2
    assert "sample is 0" in capsys.readouterr().err
    for piece in ("attack", "judge"):
        monkeypatch.setattr(sealed, "load", None)
        assert main(["sealed", piece, ".", f"--method={method}"]) == 2
        assert method.partition(".")[0] in capsys.readouterr().err


def test_an_attack_may_take_20_times_the_seconds_of_its_record(monkeypatch):
    for seconds, limit in (([10.0, 30.0], 3200), ([0.1], 600), ([], 86400)):
        rows = [{"seconds": each} for each in seconds]
        monkeypatch.setattr(sealed, "recorded", lambda *_, rows=rows: rows)
        assert time_limit(read("photos-default"), "ig", 8) == limit


@pytest.mark.parametrize("command", [["draw", "file"], ["run", "--attack=ig", "--out=file"]])
def test_a_folder_that_cannot_be_written_is_refused_in_a_line(command, track, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    monkeypatch.setattr(sealed, "draw", None)
    assert main(["sealed", *command, "--track", str(Path(ROOT) / track)]) == 2
    assert "cannot write to file" in capsys.readouterr().err


def test_a_track_that_is_gone_is_said_and_not_called_a_damaged_secret(tmp_path, capsys):
    kept = {"track": str(tmp_path / "gone.yaml"), "sample": 5, "secret": "0", "new_weights": True}
    (tmp_path / "secret.json").write_text(json.dumps(kept))
    assert main(["sealed", "judge", str(tmp_path), "--method=ig"]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_reconstructions_of_another_draw_or_method_are_refused(track, tmp_path, capsys, monkeypatch):
    """They would be scored against tasks that they are not of, and accuse the method."""
    folder, given, calls = tmp_path / "pieces", [f"--out={tmp_path / 'out'}"], []
    monkeypatch.setattr(sealed, "confined", lambda *_, **__: {"tasks": []})
    monkeypatch.setattr(sealed, "judge", lambda *_: calls.append(1) or 0)
    for _ in range(2):
        assert main(["sealed", "draw", str(folder), "--track", track, "--sample=1", *given]) == 0
        assert not (folder / "reconstructions.pt").exists()
        assert main(["sealed", "attack", str(folder), "--method=ig"]) == 0
    assert main(["sealed", "judge", str(folder), "--method=ig", *given]) == 0
    assert main(["sealed", "judge", str(folder), "--method=gias", *given]) == 2
    assert "is not of gias" in capsys.readouterr().err
    kept = (folder / "reconstructions.pt").read_bytes()
    assert main(["sealed", "draw", str(folder), "--track", track, "--sample=1", *given]) == 0
    (folder / "reconstructions.pt").write_bytes(kept)
    assert main(["sealed", "judge", str(folder), "--method=ig", *given]) == 2
    assert f"run sealed attack {folder} --attack=ig again" in capsys.readouterr().err
    assert len(calls) == 1
    observations = (folder / "observations.pt").read_bytes()
    assert main(["sealed", "draw", str(folder), "--track", track, "--sample=1", *given]) == 0
    (folder / "observations.pt").write_bytes(observations)
    assert main(["sealed", "attack", str(folder), "--method=ig"]) == 0
    assert main(["sealed", "judge", str(folder), "--method=ig", *given]) == 2
    assert "observations.pt is not of the draw in" in capsys.readouterr().err
    assert len(calls) == 1


@pytest.mark.parametrize("command", [["run", "--method=ig"], ["draw", "pieces"]])
def test_images_in_the_folder_that_an_attack_reads_are_refused(command, track, tmp_path, capsys):
    """The process of the attack may open the files of weights."""
    options = [f"--track={track}", f"--weights={tmp_path}", f"--data-dir={tmp_path / 'data'}", "--out=elsewhere"]
    assert main(["sealed", *command, *options]) == 2
    assert "data lies in the folder of weights" in capsys.readouterr().err
    plan, other = yaml.safe_load(Path(track).read_text()), tmp_path / "other.yaml"
    plan["options"]["data"] = f"folder:{tmp_path / 'pictures'}"
    other.write_text(yaml.safe_dump(plan))
    assert main(["sealed", *command, f"--track={other}", f"--weights={tmp_path}", "--out=elsewhere"]) == 2
    assert "pictures lies in the folder of weights" in capsys.readouterr().err


@pytest.mark.slow
def test_the_three_pieces_are_the_same_as_one(track, tmp_path, capsys):
    tuned(track, "ig", restarts=2, steps=5)
    folder, given = str(tmp_path / "pieces"), [f"--out={tmp_path / 'out'}"]
    assert main(["sealed", "draw", folder, "--track", track, "--sample=5", *given]) == 0
    assert main(["sealed", "attack", folder, "--method=ig"]) == 0
    left = tmp_path / "pieces" / "reconstructions.pt"
    torch.save({**load(left), "limits": "those of\nanother machine"}, left)
    assert main(["sealed", "judge", folder, "--method=ig", *given]) == 0
    assert "limits   those of another machine\n" in capsys.readouterr().out
    apart = scores(tmp_path)["rows"]
    secret = json.loads((tmp_path / "pieces" / "secret.json").read_text())["secret"]
    assert main(["sealed", "run", "--track", track, "--method=ig", "--sample=5", "--secret", secret, *given]) == 0
    assert scores(tmp_path)["rows"] == apart
    assert "computed again for 5 of 5 tasks: as claimed" in capsys.readouterr().out
    assert main(["sealed", "run", "--track", track, "--method=gifd", *given]) == 2
    assert "gifd has not been tuned" in capsys.readouterr().err
