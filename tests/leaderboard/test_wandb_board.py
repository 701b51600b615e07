"""Boards from and to W&B without a network: a fake API, and a server on this machine that takes what is logged."""

import csv
import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
import wandb
from PIL import Image
from wandb.errors import CommError

from leaderboard import record
from leaderboard.__main__ import gather, main
from leaderboard.board import entries
from leaderboard.record import Kept
from leaderboard.wandb_board import value
from tests.wandb_server import read_table, serving


class Artifact:
    """Like `wandb.Artifact` of the public API: `version` is v and a number, `download` writes its files to `root`."""

    def __init__(self, kind, version, files):
        self.type, self.version, self.files = kind, version, files

    def download(self, root):
        for name, text in self.files.items():
            path = Path(root) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return root


class Run:
    def __init__(self, id, *artifacts, group="board"):
        self.id, self.name, self.group, self.artifacts = id, f"named-{id}", group, artifacts

    def logged_artifacts(self):
        return iter(self.artifacts)


@pytest.fixture
def recorded(monkeypatch):
    """The runs of the fake API; an exception among them is raised at its turn."""
    runs = []

    class Api:
        def runs(self, path, filters=None):
            assert path == "me/project"
            for run in runs:
                if isinstance(run, Exception):
                    raise run
                if not filters or run.group == filters["group"]:
                    yield run

    monkeypatch.setattr(wandb, "Api", Api)
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    return runs


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_the_board_from_wandb_is_the_board_from_disk(recorded, row, tmp_path):
    ig = lines(*(row(task=t, psnr=p) for t, p in (("t0", 10.125), ("t1", 12.5))))
    gias = lines(*(row(attack="gias", task=t, psnr=p, lpips=None) for t, p in (("t0", 15.1), ("t1", 16.7))))
    disk = tmp_path / "disk"
    for name, text in (("ig", ig), ("gias", gias)):
        (disk / name).mkdir(parents=True)
        (disk / name / "rows.jsonl").write_text(text)
    extra = {"config.yaml": "attack: gias\n", "curves/t0.csv": "step,stage,cost\n"}
    old = Artifact("result", "v9", {"rows.jsonl": lines(row(attack="gias", psnr=1.0))})
    recorded += [
        Run("a1", Artifact("run_table", "v0", {}), Artifact("result", "v0", {"rows.jsonl": ig})),
        Run("a2", Artifact("result", "v10", {"rows.jsonl": gias, **extra}), old),
    ]
    out = tmp_path / "out"
    assert main(["--from-wandb", "me/project", str(out)]) == 0
    assert entries(gather(out).rows) == entries(gather(disk).rows)
    assert (out / "a2" / "config.yaml").read_text() == extra["config.yaml"]
    assert (out / "a2" / "curves" / "t0.csv").is_file()
    assert main([str(disk)]) == 0
    assert (out / "leaderboard.csv").read_bytes() == (disk / "leaderboard.csv").read_bytes()


def test_only_the_runs_of_a_group_are_taken(recorded, row, tmp_path):
    for group in ("one", "two"):
        recorded.append(Run(group, Artifact("result", "v0", {"rows.jsonl": lines(row(attack=group))}), group=group))
    assert main(["--from-wandb", "me/project", "--group", "two", str(tmp_path)]) == 0
    assert [entry.attack for entry in entries(gather(tmp_path).rows)] == ["two"]


def test_a_run_without_rows_is_reported_and_a_board_is_not_a_run(recorded, row, tmp_path, capsys):
    recorded += [
        Run("empty"),
        Run("board", Artifact("leaderboard", "v0", {"leaderboard.csv": ""})),
        Run("../up", Artifact("result", "v0", {"rows.jsonl": lines(row())})),
    ]
    out = tmp_path / "out"
    assert main(["--from-wandb", "me/project", str(out)]) == 0
    assert capsys.readouterr().err == "leaderboard: W&B run named-empty (empty) has no rows; left out.\n"
    assert [path.parent.parent for path in tmp_path.rglob("rows.jsonl")] == [out]


@pytest.mark.parametrize(
    ("runs", "named"),
    [
        ([], "no run of me/project has rows"),
        ([ValueError("Could not find project project")], "Could not find project"),
        ([CommError("401\nunauthorized")], "(401 unauthorized)"),
        ([ConnectionError("no route to host")], "no route to host"),
    ],
)
def test_a_project_that_cannot_be_read_is_one_line(recorded, tmp_path, capsys, runs, named):
    recorded += runs
    assert main(["--from-wandb", "me/project", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("leaderboard: ")
    assert said.count("\n") == 1
    assert named in said


@pytest.mark.parametrize("project", ["project", "me/", "/project", "me/project/run"])
@pytest.mark.parametrize("option", ["--from-wandb", "--to-wandb"])
def test_a_project_has_two_names(row, tmp_path, capsys, option, project):
    (tmp_path / "rows.jsonl").write_text(lines(row()))
    assert main([option, project, str(tmp_path)]) == 2
    assert "write ENTITY/PROJECT" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ({}, "W&B online needs an API key; run `wandb login`"),
        ({"WANDB_API_KEY": "short"}, "40+ characters"),
        ({"WANDB_BASE_URL": "nowhere"}, "fix the variables WANDB_..."),
    ],
)
def test_without_a_key_there_is_no_prompt(tmp_path, own, named):
    known = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    nowhere = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "WANDB_BASE_URL": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-m", "leaderboard", "--from-wandb", "me/project", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=300,
        env=known | nowhere | own,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("leaderboard: W&B ")
    assert done.stderr.count("\n") == 1
    assert named in done.stderr


def test_a_board_is_logged_with_its_files_and_the_record(row, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    out = tmp_path / "spring"
    out.mkdir()
    (out / "rows.jsonl").write_text(lines(row(task="t0"), row(task="t1", psnr=30.0), row(attack="gias", lpips=None)))
    (out / "leaderboard.html").write_text("<p>a page</p>")
    kept = [Kept(track, method, rows, tmp_path) for track, method, rows in recorded_rows(row)]
    monkeypatch.setattr(record, "read", lambda: iter(kept))
    monkeypatch.setattr(record, "picture", lambda track, method: tmp_path / f"{track}-{method}.webp")
    Image.new("RGB", (8, 4), "red").save(tmp_path / "faces-ig.webp", lossless=True)
    with serving(tmp_path / "home") as server:
        assert main([str(out), "--to-wandb", "me/project"]) == 0
    (run,) = server.runs.values()
    assert (run["entity"], run["project"], run["groupName"], run["jobType"]) == (
        "me",
        "project",
        "spring",
        "leaderboard",
    )
    (files,) = server.versions("leaderboard")
    assert files == {name: (out / name).read_bytes() for name in map("leaderboard.{}".format, ("csv", "html", "md"))}
    board, methods = (
        (files, name)
        for name in ("leaderboard", "record")
        for files in server.versions("run_table")
        if f"{name}.table.json" in files
    )
    written = list(csv.DictReader((out / "leaderboard.csv").read_text().splitlines()))
    logged = read_table(*board)
    assert [line.keys() for line in logged] == [line.keys() for line in written]
    assert {line["attack"]: (line["psnr"], line["lpips"], line["n"]) for line in logged} == {
        "ig": (25.0, 0.25, 2.0),
        "gias": (20.0, None, 1.0),
    }
    lines_of = {(line["track"], line["method"]): line for line in read_table(*methods)}
    assert {key: (line["psnr/mean"], line["n"], bool(line["images"])) for key, line in lines_of.items()} == {
        ("cats", "ig"): (25.0, 2, False),
        ("cats", "gias"): (20.0, 2, False),
        ("faces", "ig"): (10.0, 2, True),
    }
    shown = Image.open(BytesIO(lines_of["faces", "ig"]["images"]))
    assert (shown.size, shown.getpixel((3, 3))) == ((8, 4), (255, 0, 0))
    (tables,) = server.versions("record")
    for track in ("cats", "faces"):
        whole = [each for one in kept if one.track == track for each in one.rows]
        nested = [key for key, value in whole[0].items() if isinstance(value, dict)]
        found = read_table(tables, track)
        assert [line | {key: json.loads(line[key]) for key in nested} for line in found] == whole


def recorded_rows(row):
    """Track, method, and rows of the first, second and third file of a record."""
    psnr = {("cats", "gias"): (15.0, 25.0), ("cats", "ig"): (20.0, 30.0), ("faces", "ig"): (9.0, 11.0)}
    for (track, attack), values in psnr.items():
        rows = [
            row(attack=attack, track=track, size=64, task=f"t{k}", image=f"i{k}", psnr=v) for k, v in enumerate(values)
        ]
        yield track, attack, rows


@pytest.mark.parametrize(
    ("key", "cell", "expected"),
    [
        ("victim_digest", "1e345678", "1e345678"), ("data_digest", "00123456", "00123456"), ("attack", "nan", "nan"),
        ("size", "32", 32.0), ("psnr_low", "1e-3", 0.001), ("adapt", "False", "False"), ("options", "lr=1", "lr=1"),
        ("steps", "", None), ("prior_digest", "", None),
    ],
)  # fmt: skip
def test_only_what_is_a_number_becomes_one(key, cell, expected):
    assert value(key, cell) == expected


def test_a_board_that_cannot_be_logged_is_one_line_and_stays_on_disk(row, tmp_path, monkeypatch, capsys):
    def fail(**options):
        raise CommError("no route\nto host")

    monkeypatch.setenv("WANDB_DATA_DIR", "restored at the end")
    monkeypatch.setattr(wandb, "init", fail)
    (tmp_path / "rows.jsonl").write_text(lines(row()))
    assert main([str(tmp_path), "--to-wandb", "me/project"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no route to host" in said
    assert (tmp_path / "leaderboard.csv").is_file()
