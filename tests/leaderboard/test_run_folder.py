"""The files of one run: what was written is read back."""

import pytest

from leaderboard.rows import read_rows
from leaderboard.run_folder import RunFolder, find_runs


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "run")


def test_rows_come_back_as_they_went_in_and_in_order(run, scored):
    for task in ("t1", "t0"):
        run.add_rows(task, [scored(task, "a"), scored(task, "b")])
    assert not run.rows_file.exists()
    rows = run.merge_rows(["t0", "t1"])
    assert [(row["task"], row["image"]) for row in rows] == [("t0", "a"), ("t0", "b"), ("t1", "a"), ("t1", "b")]
    assert rows[0] == scored("t0", "a").flat()
    assert read_rows(run.rows_file) == (rows, [])
    assert not (run.path / "parts").exists()


def test_a_shorter_run_loses_nothing(run, scored):
    for task in ("t0", "t1"):
        run.add_rows(task, [scored(task, "a"), scored(task, "b")])
    run.merge_rows(["t0", "t1"])
    before = run.rows_file.read_bytes()
    assert [row["task"] for row in run.merge_rows(["t0"])] == ["t0", "t0"]
    assert run.rows_file.read_bytes() == before


def test_merging_again_changes_nothing(run, scored):
    run.add_rows("t0", [scored(), scored(image="b")])
    run.merge_rows(["t0"])
    before = run.rows_file.read_bytes()
    run.merge_rows(["t0"])
    assert run.rows_file.read_bytes() == before


def test_a_task_done_again_replaces_its_rows(run, scored):
    run.add_rows("t0", [scored(psnr=1.0), scored(image="b")])
    run.merge_rows(["t0"])
    run.add_rows("t0", [scored(psnr=2.0), scored(image="b")])
    assert [row["psnr"] for row in run.merge_rows(["t0"])] == [2.0, 20.0]


def test_a_torn_last_line_costs_its_task_and_nothing_else(run, scored):
    for task in ("t0", "t1"):
        run.add_rows(task, [scored(task, "a"), scored(task, "b")])
    run.merge_rows(["t0", "t1"])
    run.rows_file.write_text(run.rows_file.read_text()[:-40])
    tasks, warnings = run.read_tasks()
    assert list(tasks) == ["t0"]
    assert len(warnings) == 1
    assert "rows.jsonl:4" in warnings[0]
    assert "\n" not in warnings[0]


def test_half_a_task_is_not_done(run, scored):
    run.add_rows("t0", [scored(image="a")])
    assert run.read_tasks()[0] == {}


def test_a_part_is_newer_than_the_rows_of_its_task(run, scored):
    run.add_rows("t0", [scored(psnr=1.0), scored(image="b")])
    run.merge_rows(["t0"])
    run.add_rows("t0", [scored(psnr=2.0), scored(image="b")])
    assert run.read_tasks()[0]["t0"][0]["psnr"] == 2.0
    assert [row["psnr"] for row in run.read_rows()[0]] == [2.0, 20.0]


def test_a_board_sees_every_row_while_another_process_merges_them(run, scored, monkeypatch):
    """Which then writes rows.jsonl and removes the parts."""
    for task in ("t0", "t1"):
        run.add_rows(task, [scored(task, "a"), scored(task, "b")])
    parts = run._parts()
    monkeypatch.setattr(run, "_parts", lambda: parts)
    RunFolder(run.path).merge_rows(["t0", "t1"])
    assert not any(part.exists() for part in parts)
    rows, warnings = run.read_rows()
    assert [row["task"] for row in rows] == ["t0", "t0", "t1", "t1"]
    assert not warnings
    of_parts = read_rows(run.rows_file)[0]

    def merged_meanwhile(path):
        """The first part is read before."""
        if path == parts[1]:
            monkeypatch.undo()
            RunFolder(run.path).merge_rows(["t0", "t1"])
        return read_rows(path)

    for task in ("t0", "t1"):
        run.add_rows(task, [scored(task, "a"), scored(task, "b")])
    run.rows_file.unlink()
    monkeypatch.setattr("leaderboard.run_folder.read_rows", merged_meanwhile)
    assert run.read_rows() == (of_parts, [])


def test_images_of_one_name_in_several_folders_have_pictures_of_their_own(run):
    """As ids of one's own data set may be. Those without a folder keep their names."""
    assert len({run.truth(image) for image in ("a/1", "b/1", "1")}) == 3
    assert len({run.reconstruction(task, image) for task in ("t0", "t1") for image in ("a/1", "b/1")}) == 4
    assert run.truth("1").name == "1.png"
    assert run.reconstruction("t", "1").name == "t--1.png"


def test_what_wandb_keeps_in_a_run_is_no_run(run, scored):
    run.add_rows("t0", [scored(), scored(image="b")])
    files = run.path / "wandb" / "run-20261130_080000-abc" / "files"
    files.mkdir(parents=True)
    (files / "config.yaml").write_text("attack: {value: ig}\n_wandb: {value: {a: {b: 1}}}\n")
    assert [found.path for found in find_runs(run.path.parent)] == [run.path]


def test_options_come_back(run):
    assert run.read_config() is None
    run.write_config("# plan: 3\nattack: ig\nset: [tv=1]\n")
    assert run.read_config() == {"attack": "ig", "set": ["tv=1"]}
    run.write_config("attack: ig\nbn: unmixed\ndefense: quantisation:4\n")  # as an older version called them
    assert run.read_config() == {"attack": "ig", "bn": "recovered", "defense": "quantization:4"}


@pytest.mark.parametrize("text", ["", "3", "attack", "- attack", "attack: [", "preset: x"])
def test_a_configuration_that_is_none_is_none(run, text):
    run.write_config(text)
    assert run.read_config() is None


def test_a_curve_comes_back(run):
    assert run.read_curve("t0") is None
    run.write_curve("t0", ["x", "w"], [0.1 + 0.2, float("inf")])
    assert run.read_curve("t0") == (["x", "w"], [0.1 + 0.2, float("inf")])
    assert run.curve_file("t0").read_bytes() == b"step,stage,cost\r\n0,x,0.30000000000000004\r\n1,w,inf\r\n"


@pytest.mark.parametrize("text", ["", "step,stage,cost\n", "step,stage\n0,x\n", "step,stage,cost\n0,x", "\0\x01"])
def test_a_torn_curve_is_refused(run, text):
    run.write_curve("t0", ["x"], [1.0])
    run.curve_file("t0").write_text(text)
    with pytest.raises(ValueError, match=r"t0\.csv|float"):
        run.read_curve("t0")


def test_layers_come_back_as_text(run):
    assert run.read_layers("t0") == []
    run.write_layers("t0", ("layer", "rank"), [("fc", 3), ("conv", 12)])
    assert run.read_layers("t0") == [{"layer": "fc", "rank": "3"}, {"layer": "conv", "rank": "12"}]
    run.write_layers("t1", ("layer", "rank"), [])
    assert run.read_layers("t1") == []


def test_pictures_lie_where_they_are_looked_for(run):
    run.write_reconstruction("t0", "a", b"ours")
    run.write_truth("a", b"theirs")
    assert (run.path / "reconstructions" / "t0--a.png").read_bytes() == b"ours"
    assert (run.path / "truth" / "a.png").read_bytes() == b"theirs"


def test_no_name_in_a_row_leads_out_of_the_folder(run):
    inside = [run.curve_file("../../x"), run.layers_file("/etc/x"), run.reconstruction("../t", "../../x")]
    assert {path.parent.parent for path in [*inside, run.truth("/a/b")]} == {run.path}


def test_what_wandb_has_is_kept_by_mode(run):
    run.write_logged("offline", ["t0", "t1"])
    assert (run.read_logged("offline"), run.read_logged("online")) == (["t0", "t1"], [])


def test_runs_are_found_by_rows_parts_or_options(tmp_path):
    for file in ("b/rows.jsonl", "a/parts/t0.jsonl", "c/d/config.yaml", "e/curves/t0.csv", "b/parts/t0.jsonl"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert [run.path for run in find_runs(tmp_path)] == [tmp_path / name for name in ("a", "b", "c/d")]
    assert [run.path for run in find_runs(tmp_path / "a")] == [tmp_path / "a"]


def test_names_that_are_too_long_for_a_file_are_cut_and_stay_apart(tmp_path):
    folder = RunFolder(tmp_path)
    images = [start + "画" * 100 + end for start in "ab" for end in "cd"]
    files = {folder.truth(image) for image in images} | {folder.reconstruction("task", image) for image in images}
    assert len(files) == 8
    for file in files:
        assert len(file.name.encode()) <= 255
        assert file.suffix == ".png"
    folder.write_truth(images[0], b"picture")
    assert folder.truth(images[0]).read_bytes() == b"picture"
    folder.write_curve("t" * 300, ["x"], [1.0])
    assert folder.read_curve("t" * 300).costs == [1.0]
    assert folder.truth("a" * 251).name == "a" * 251 + ".png"  # what fits keeps its name
    assert folder.truth("../" * 100 + "x").parent == tmp_path / "truth"
