"""Runs to W&B, offline: what a sync would send is read back from the files that W&B keeps."""

import csv
import json

import numpy as np
import pytest
import wandb
import yaml
from PIL import Image
from wandb.errors import CommError

from benchmark.__main__ import main
from leaderboard.board import entries
from leaderboard.rows import PROTOCOL, read_rows
from tests import wandb_records
from victims.data.photos import Photos

SMALL = ["--attack=ig", "--victim=lenet", "--batch=2", "--steps=4", "--restarts=1", "--devices=1"]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The folder of a run of one task that was repeated, then of one more task, and what W&B kept each time."""
    out = tmp_path_factory.mktemp("w") / "board"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIBENCH_OFFLINE", "1")
        patch.setenv("WANDB_DATA_DIR", "restored at the end")
        patch.delenv("WANDB_PROJECT", raising=False)
        for tasks in (1, 1, 2):
            assert main(["run", *SMALL, f"--tasks={tasks}", "--wandb=offline", f"--out={out}"]) == 0
    (folder,) = out.iterdir()
    return folder, [wandb_records.records(path) for path in sorted(folder.glob("wandb/offline-run-*"))]


def rows_of(folder):
    return read_rows(folder / "rows.jsonl")[0]


def test_it_is_one_run_of_the_board_and_logged_tasks_are_not_sent_again(result):
    folder, kept = result
    assert len(kept) == 2  # the repeated command logged nothing
    runs = [record.run for records in kept for record in records if record.HasField("run")]
    assert len({run.run_id for run in runs}) == 1
    assert {(run.project, run.run_group, run.display_name, run.job_type) for run in runs} == {
        ("gibench", "board", folder.name, "attack")
    }


def test_the_configuration_is_the_resolved_one(result):
    folder, (first, second) = result
    config = wandb_records.config(second)
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert config.items() >= {key: value for key, value in written.items() if key != "restarts"}.items()
    assert (config["protocol"], config["plan"], config["restarts"]) == (PROTOCOL, {"x": 4}, 1)
    assert (wandb_records.config(first)["tasks"], config["tasks"]) == (1, 2)


def test_every_cost_of_every_task_is_there_once(result):
    folder, kept = result
    logged = [
        (name, line["step"], cost)
        for records in kept
        for line in wandb_records.history(records)
        for name, cost in line.items()
        if name.startswith("cost/")
    ]
    written = []
    for path in folder.glob("curves/*.csv"):
        with path.open(newline="") as file:
            written += [(f"cost/{path.stem}", int(x["step"]), float(x["cost"])) for x in csv.DictReader(file)]
    assert len(written) == 8
    assert sorted(logged) == sorted(written)
    (axis,) = [record.metric for record in kept[1] if record.HasField("metric") and record.metric.glob_name]
    assert (axis.glob_name, axis.step_metric) == ("cost/*", "step")


def test_the_table_has_every_key_of_every_row_and_its_pictures(result):
    folder, (_, kept) = result
    (files,) = wandb_records.artifacts(kept, "run_table")
    table = json.loads(files["images.table.json"].read_text())
    rows = rows_of(folder)
    assert set(table["columns"]) == rows[0].keys() | {"truth", "reconstruction"}
    lines = [dict(zip(table["columns"], cells, strict=True)) for cells in table["data"]]
    data = Photos(split="test", size=32)
    assert len(rows) == 4
    for line, row in zip(lines, rows, strict=True):
        truth, reconstruction = (files[line.pop(name)["path"]] for name in ("truth", "reconstruction"))
        nested = {name: json.loads(line[name]) for name, value in row.items() if isinstance(value, dict)}
        assert line | nested == row
        image = (data[data.ids.index(row["image"])][0] * 255).round().byte().permute(1, 2, 0)
        assert np.array_equal(np.asarray(Image.open(truth)), image)
        saved = folder / "reconstructions" / f"{row['task']}--{row['image']}.png"
        assert np.array_equal(np.asarray(Image.open(reconstruction)), np.asarray(Image.open(saved)))


def test_the_summary_is_over_all_tasks(result):
    folder, (_, kept) = result
    summary, rows = wandb_records.summary(kept), rows_of(folder)
    for name in ("psnr", "mse", "cost"):
        assert summary[name] == pytest.approx(np.mean([row[name] for row in rows]))
    assert (summary["n"], summary["diverged"]) == (4, 0)
    assert "lpips" not in summary  # no row has one here


def test_the_artifact_has_all_files_that_a_board_reads(result):
    folder, (first, second) = result
    (before,), (files,) = (wandb_records.artifacts(kept, "result") for kept in (first, second))
    assert len(read_rows(before["rows.jsonl"])[0]) == 2  # as it was then, for a sync that comes late
    assert entries(read_rows(files["rows.jsonl"])[0]) == entries(rows_of(folder))
    assert {name.split("/")[0] for name in files} == {
        *("config.yaml", "contents.json", "rows.jsonl", "curves", "reconstructions", "truth"),
        *("picture.png", "curves.png"),
    }
    assert sum(name.startswith("reconstructions/") for name in files) == 4


def test_files_that_wait_for_a_sync_are_in_the_folder(result):
    folder, (_, kept) = result
    files = [path for kind in ("run_table", "result") for path in wandb_records.artifacts(kept, kind)[0].values()]
    assert all(path.is_relative_to(folder) and path.is_file() for path in files)


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


def test_online_without_a_key_is_refused_before_anything_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    assert main(["run", *SMALL, "--wandb=online", f"--out={tmp_path / 'out'}"]) == 2
    assert "wandb login" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
