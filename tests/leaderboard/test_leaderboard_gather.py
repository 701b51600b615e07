import json

import pytest

from leaderboard.gather import gather
from victims.errors import InputError


def write(folder, rows, tasks=None):
    folder.mkdir(parents=True)
    if rows:
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if tasks is not None:
        (folder / "config.yaml").write_text(f"attack: ig\ntasks: {tasks}\n")


def test_every_row_has_the_folder_of_its_run(tmp_path, row):
    write(tmp_path / "a", [row(), row(image="b")])
    write(tmp_path / "b" / "parts", [])
    (tmp_path / "b" / "parts" / "t0.jsonl").write_text(json.dumps(row(attack="gias")) + "\n")
    rows, folders, warnings = gather(tmp_path)
    assert [r["attack"] for r in rows] == ["ig", "ig", "gias"]
    assert folders == [tmp_path / "a", tmp_path / "a", tmp_path / "b"]
    assert warnings == []


def test_a_deleted_row_file_is_reported_and_the_rest_is_there(tmp_path, row):
    write(tmp_path / "whole", [row()], tasks=1)
    write(tmp_path / "deleted", [], tasks=4)
    rows, _, (warning,) = gather(tmp_path)
    assert len(rows) == 1
    assert f"{tmp_path / 'deleted'} has rows of 0 of its 4 tasks" in warning


def test_a_torn_row_file_is_reported_and_the_rest_is_there(tmp_path, row):
    write(tmp_path / "run", [row(task="t0"), row(task="t1")], tasks=2)
    path = tmp_path / "run" / "rows.jsonl"
    path.write_text(path.read_text()[:-40])
    rows, _, warnings = gather(tmp_path)
    assert [r["task"] for r in rows] == ["t0"]
    assert "rows.jsonl:2 is not a whole row" in warnings[0]
    assert "rows of 1 of its 2 tasks" in warnings[1]


def test_a_score_that_is_not_a_number_is_left_out(tmp_path, row):
    write(tmp_path / "run", [row(), row(image="b", psnr="high")])
    rows, folders, (warning,) = gather(tmp_path)
    assert len(rows) == len(folders) == 1
    assert "1 rows have a score that is not a number" in warning


@pytest.mark.parametrize("text", ["a: [", "just words", "tasks: many\nattack: ig\n", ""])
def test_a_configuration_that_is_none_costs_no_row(tmp_path, row, text):
    write(tmp_path / "run", [row()])
    (tmp_path / "run" / "config.yaml").write_text(text)
    assert len(gather(tmp_path).rows) == 1


def test_a_row_file_that_is_a_folder_is_reported(tmp_path, row):
    write(tmp_path / "run", [row()])
    (tmp_path / "odd" / "rows.jsonl").mkdir(parents=True)
    assert "cannot be read" in gather(tmp_path).warnings[0]


def test_nothing_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no rows under"):
        gather(tmp_path)


def test_runs_on_other_pictures_of_the_same_names_are_on_other_data(tmp_path, row):
    def run(name, attack, pictures):
        rows = [row(attack=attack, task=f"t{place}", image_digest=digest) for place, digest in enumerate(pictures)]
        write(tmp_path / name, rows)

    run("old", "ig", ["1", "1", "1"])
    run("old-longer", "gias", ["1", "1", "1", "1"])
    run("new", "ig", ["1", "1", "2", "2"])  # one picture was replaced
    run("new-longer", "gias", ["1", "1", "2", "2", "2"])
    run("unknown", "dlg", ["", ""])
    rows, folders, _ = gather(tmp_path)
    data = {
        folder.name: {r["data_digest"] for r, f in zip(rows, folders, strict=True) if f == folder} for folder in folders
    }
    assert data["old"] == data["old-longer"] == data["unknown"] == {""}
    assert data["new"] == data["new-longer"] == {"-2"}


def test_a_run_in_gray_and_one_in_color_are_on_the_same_data(tmp_path, row):
    """Tasks and images have the same names, and other pixels."""
    for digest in ("0", "1"):  # which comes first is decided by these
        folder = tmp_path / digest
        write(folder / "color", [row(image_digest="5")])
        write(folder / "gray", [row(image_digest=digest, channels=1)])
        assert len({found["data_digest"] for found in gather(folder).rows}) == 1


def test_runs_on_the_same_pictures_are_on_the_same_data(tmp_path, row):
    for seed in range(2):
        write(tmp_path / str(seed), [row(seed=seed, image_digest="1"), row(seed=seed, image="b", image_digest="2")])
    assert {r["data_digest"] for r in gather(tmp_path).rows} == {""}


def test_trials_of_tuning_are_no_scores(tmp_path, row):
    write(tmp_path / "run", [row()])
    write(tmp_path / "tune" / "mine" / "ig" / "run", [row(split="tune")])
    assert gather(tmp_path).folders == [tmp_path / "run"]
    assert len(gather(tmp_path / "tune").rows) == 1
