import json
from dataclasses import asdict, fields

import pytest

from leaderboard.rows import PROTOCOL, Row, RowStore, read_rows


def make(task="t0", image="a", **changes):
    values = {field.name: "x" for field in fields(Row)}
    numbers = {
        "protocol": PROTOCOL,
        "batch_size": 2,
        "psnr": 20.0,
        "lpips": None,
        "adapt": True,
        "options": {"tv": "1"},
    }
    return Row(**{**values, **numbers, "task": task, "image": image, **changes})


@pytest.fixture
def store(tmp_path):
    return RowStore(tmp_path)


def test_rows_come_back_as_they_went_in_and_in_order(store):
    for task in ("t1", "t0"):
        store.add(task, [make(task, "a"), make(task, "b")])
    assert not store.file.exists()
    rows = store.merge(["t0", "t1"])
    assert [(row["task"], row["image"]) for row in rows] == [("t0", "a"), ("t0", "b"), ("t1", "a"), ("t1", "b")]
    assert rows[0] == asdict(make("t0", "a"))
    assert read_rows(store.file) == (rows, [])
    assert not store.parts.exists()


def test_a_shorter_run_loses_nothing(store):
    for task in ("t0", "t1"):
        store.add(task, [make(task, "a"), make(task, "b")])
    store.merge(["t0", "t1"])
    before = store.file.read_bytes()
    assert [row["task"] for row in store.merge(["t0"])] == ["t0", "t0"]
    assert store.file.read_bytes() == before


def test_merging_again_changes_nothing(store):
    store.add("t0", [make(), make(image="b")])
    store.merge(["t0"])
    before = store.file.read_bytes()
    store.merge(["t0"])
    assert store.file.read_bytes() == before


def test_a_task_done_again_replaces_its_rows(store):
    store.add("t0", [make(psnr=1.0), make(image="b")])
    store.merge(["t0"])
    store.add("t0", [make(psnr=2.0), make(image="b")])
    assert [row["psnr"] for row in store.merge(["t0"])] == [2.0, 20.0]


def test_a_torn_last_line_costs_its_task_and_nothing_else(store):
    for task in ("t0", "t1"):
        store.add(task, [make(task, "a"), make(task, "b")])
    store.merge(["t0", "t1"])
    store.file.write_text(store.file.read_text()[:-40])
    tasks, warning_lines = store.read()
    assert list(tasks) == ["t0"]
    assert len(warning_lines) == 1
    assert "rows.jsonl:4" in warning_lines[0]
    assert "\n" not in warning_lines[0]


@pytest.mark.parametrize("line", ["[1, 2]", json.dumps({"psnr": 3}), "null", "\udcff"])
def test_a_foreign_line_is_left_out_and_reported(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(asdict(make())) + "\n" + line + "\n", errors="surrogateescape")
    rows, warning_lines = read_rows(path)
    assert len(rows) == len(warning_lines) == 1


def test_half_a_task_is_not_done(store):
    store.add("t0", [make(image="a")])
    assert store.read()[0] == {}


def test_rows_written_before_there_were_rounds_are_of_one(tmp_path):
    older = asdict(make())
    del older["rounds"], older["between"]
    (tmp_path / "rows.jsonl").write_text(json.dumps(older) + "\n")
    rows, warning_lines = read_rows(tmp_path / "rows.jsonl")
    assert (rows[0]["rounds"], rows[0]["between"], warning_lines) == (1, 0, [])
    assert rows[0]["psnr"] == older["psnr"]
