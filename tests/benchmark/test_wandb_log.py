"""Runs to W&B, offline: what `wandb sync` then sends is what a server on this machine has received."""

import csv
import json
from io import BytesIO

import numpy as np
import pytest
import wandb
import yaml
from PIL import Image
from wandb.errors import CommError

from benchmark import wandb_log
from benchmark.__main__ import main
from benchmark.wandb_log import curves
from leaderboard.__main__ import main as leaderboard
from leaderboard.board import entries
from leaderboard.rows import PROTOCOL, read_rows
from leaderboard.run_folder import RunFolder
from leaderboard.statistics import clustered_interval
from tests.wandb_server import read_table, serving, sync
from victims.data.photos import Photos

SMALL = ["--attack=ig", "--victim=lenet", "--batch=2", "--steps=4", "--restarts=1", "--devices=1"]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The folder of a run of one task that was repeated, then of one more task, what W&B was sent, and as which run."""
    out = tmp_path_factory.mktemp("w") / "board"
    with pytest.MonkeyPatch.context() as patch, serving(tmp_path_factory.mktemp("home")) as server:
        patch.setenv("GIBENCH_OFFLINE", "1")
        for tasks in (1, 1, 2):
            assert main(["run", *SMALL, f"--tasks={tasks}", "--wandb=offline", f"--out={out}"]) == 0
        (folder,) = out.iterdir()
        files = [path for path in folder.rglob("wandb/**/*") if path.is_file()]
        assert all(path.is_relative_to(folder) for path in files)  # what waits for a sync is removed with the results
        sync(folder / "wandb")
        (run,) = server.runs
        yield folder, server, run


def rows_of(folder):
    return read_rows(folder / "rows.jsonl")[0]


def pixels(png):
    return np.asarray(Image.open(BytesIO(png))).astype(int)


def test_it_is_one_run_of_its_setting_and_logged_tasks_are_not_sent_again(result):
    folder, server, run = result
    sent = server.runs[run]
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2  # the repeated command logged nothing
    assert (sent["project"], sent["displayName"], sent["jobType"]) == ("gibench", folder.name, "attack")
    assert sent["groupName"] == "photos, 32 px, lenet, batch 2"
    assert sent["tags"] == ["sparsification:0.5"]


def test_the_configuration_is_the_resolved_one(result):
    folder, server, run = result
    config = server.config(run)
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert config.items() >= {key: value for key, value in written.items() if key != "restarts"}.items()
    assert (config["protocol"], config["plan"], config["restarts"]) == (PROTOCOL, {"x": 4}, 1)
    assert config["tasks"] == 2


def test_every_cost_of_every_task_is_there_once(result):
    folder, server, run = result
    logged = [
        (name, line["step"], cost)
        for line in server.history(run)
        for name, cost in line.items()
        if name.startswith("cost/")
    ]
    assert len(written := costs_of(folder)) == 8
    assert sorted(logged) == sorted(written)


def costs_of(folder):
    """(name, step, cost) of all curves."""
    found = []
    for path in folder.glob("curves/*.csv"):
        with path.open(newline="") as file:
            found += [(f"cost/{path.stem}", int(x["step"]), float(x["cost"])) for x in csv.DictReader(file)]
    return found


def test_one_chart_has_the_quartiles_of_the_cost_over_all_tasks(result):
    folder, server, _ = result
    files = next(each for each in reversed(server.versions("run_table")) if "cost_by_step_table.table.json" in each)
    drawn = {(line["lineKey"], line["step"]): line["lineVal"] for line in read_table(files, "cost_by_step_table")}
    names = ["lower quartile", "median", "upper quartile"]
    assert drawn == {
        (name, step): pytest.approx(np.quantile([cost for _, at, cost in costs_of(folder) if at == step], quantile))
        for step in range(4)
        for name, quantile in zip(names, (0.25, 0.5, 0.75), strict=True)
    }


def test_the_table_has_every_key_of_every_row_and_its_pictures(result):
    folder, server, _ = result
    files = next(each for each in reversed(server.versions("run_table")) if "images.table.json" in each)
    lines, rows = read_table(files, "images"), rows_of(folder)
    assert list(lines[0])[:5] == ["task", "image", "truth", "reconstruction", "difference"]
    data = Photos(split="test", size=32)
    assert len(rows) == 4
    for line, row in zip(lines, rows, strict=True):
        truth, ours, apart = (pixels(line.pop(name)) for name in ("truth", "reconstruction", "difference"))
        nested = {name: json.loads(line[name]) for name, value in row.items() if isinstance(value, dict)}
        assert line | nested == row
        image = (data[data.ids.index(row["image"])][0] * 255).round().byte().permute(1, 2, 0)
        assert np.array_equal(truth, image)
        saved = (folder / "reconstructions" / f"{row['task']}--{row['image']}.png").read_bytes()
        assert np.array_equal(ours, pixels(saved))
        assert np.array_equal(apart, np.minimum(2 * np.abs(truth - ours), 255))


def test_the_summary_has_means_and_intervals_over_all_tasks(result):
    folder, server, run = result
    summary, rows = server.summary(run), rows_of(folder)
    for name in ("psnr", "mse"):
        score = clustered_interval([row[name] for row in rows], [row["task"] for row in rows], (0, 100))
        sent = {end: summary[f"{name}/{end}"] for end in ("mean", "low", "high", "n")}
        assert sent == {end: pytest.approx(getattr(score, end)) for end in sent}
        assert sent["mean"] == pytest.approx(np.mean([row[name] for row in rows]))
    assert (summary["n"], summary["tasks"], summary["diverged"], summary["gradients/task"]) == (4, 2, 0, 4)
    assert not any(key.startswith("lpips/") for key in summary)  # no row has one here


def test_the_artifact_has_all_files_that_a_board_reads(result, tmp_path):
    folder, server, _ = result
    before, files = server.versions("result")
    (tmp_path / "before").write_bytes(before["rows.jsonl"])
    assert len(read_rows(tmp_path / "before")[0]) == 2  # as it was then, for a sync that comes late
    (tmp_path / "after").write_bytes(files["rows.jsonl"])
    assert entries(read_rows(tmp_path / "after")[0]) == entries(rows_of(folder))
    assert {name.split("/")[0] for name in files} == {
        *("config.yaml", "contents.json", "rows.jsonl", "curves", "reconstructions", "truth"),
        *("picture.png", "curves.png"),
    }
    assert sum(name.startswith("reconstructions/") for name in files) == 4


def test_the_board_of_what_was_sent_is_the_board_of_the_disk(result, tmp_path, monkeypatch):
    folder, server, run = result
    monkeypatch.delenv("WANDB_MODE")
    for group, code in ((server.runs[run]["groupName"], 0), ("cifar10-b1", 2)):
        found = tmp_path / group
        assert leaderboard([str(found), "--from-wandb=me/gibench", f"--group={group}"]) == code
        assert (found / run / "rows.jsonl").is_file() == (code == 0)
    assert leaderboard([str(folder)]) == 0
    sent = tmp_path / server.runs[run]["groupName"]
    assert (sent / "leaderboard.csv").read_bytes() == (folder / "leaderboard.csv").read_bytes()
    assert len(list(sent.rglob("*.png"))) == 10


def test_off_is_off(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("it was begun"))
    assert main(["run", *SMALL, "--tasks=1", "--control=mean_image", "--wandb=off", f"--out={tmp_path}"]) == 0
    assert not list(tmp_path.glob("*/wandb"))


def test_a_failure_of_wandb_is_one_line_and_the_next_command_tries_again(tmp_path, monkeypatch, capsys):
    begun = []

    def fail(**options):
        begun.append(options["mode"])
        raise CommError("no route\nto host")

    monkeypatch.setenv("WANDB_DATA_DIR", "restored at the end")
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(wandb, "init", fail)
    command = ["run", *SMALL, "--tasks=1", "--control=mean_image", "--wandb=online", f"--out={tmp_path}"]
    for times in (1, 2):
        assert main(command) == 0
        (said,) = [line for line in capsys.readouterr().err.splitlines() if "W&B" in line]
        assert "(no route to host)" in said
        assert len(begun) == times
    (folder,) = tmp_path.iterdir()
    assert len(rows_of(folder)) == 2


def test_another_project_does_not_have_the_tasks_of_the_first(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(wandb_log, "send", lambda folder, rows, new, *_: begun.append(len(new)))
    command = ["run", *SMALL, "--tasks=1", "--control=mean_image", "--wandb=offline", f"--out={tmp_path}"]
    for name in ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for project in ("", "", "mine", "mine", ""):
        monkeypatch.setenv("WANDB_PROJECT", project)
        assert main(command) == 0
    assert begun == [1, 1]


def test_online_without_a_key_is_refused_before_anything_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    assert main(["run", *SMALL, "--wandb=online", f"--out={tmp_path / 'out'}"]) == 2
    assert "wandb login" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_curve_is_left_out_and_the_others_are_sent(tmp_path):
    folder = RunFolder(tmp_path)
    for task, text in (("t0", "step,stage,cost\n0,x,1.5\n1,x,0.5\n"), ("t1", "torn")):
        folder.curve_file(task).parent.mkdir(exist_ok=True)
        folder.curve_file(task).write_text(text)
    assert curves(folder, ["t0", "t1"]) == [{"cost/t0": 1.5}, {"cost/t0": 0.5}]
