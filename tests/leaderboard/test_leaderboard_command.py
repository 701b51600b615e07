import csv
import json
import os
import subprocess
import sys

import pytest

from leaderboard.__main__ import main


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "leaderboard", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"COLUMNS": "300"},
    )


def write(path, rows, *, end=""):
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + end)


@pytest.fixture
def out(tmp_path, row):
    """A finished run, an unfinished one, and a torn line in it."""
    psnr = {"ig": (10, 12, 11, 11, 11), "gias": (15, 16, 15, 16, 15.5)}
    ig, gias = (
        [row(attack=attack, task=f"t{i}", image=f"t{i}", psnr=value) for i, value in enumerate(values)]
        for attack, values in psnr.items()
    )
    write(tmp_path / "one" / "rows.jsonl", ig)
    write(tmp_path / "two" / "parts" / "t0.jsonl", gias, end='{"attack": "gi')
    return tmp_path


def test_board_of_finished_and_unfinished_runs(out):
    done = run(out)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-3:] == [str(out / f"leaderboard.{kind}") for kind in ("md", "csv", "html")]
    sheet = list(csv.DictReader((out / "leaderboard.csv").read_text().splitlines()))
    assert [(line["attack"], line["n"], float(line["psnr"])) for line in sheet] == [
        ("gias", "5", 15.5),
        ("ig", "5", 11),
    ]
    assert "15.50 [14.9, 16.1]" in done.stdout
    assert "15.50 [14.9, 16.1]" in (out / "leaderboard.md").read_text()


def test_a_torn_line_is_reported_and_stops_nothing(out):
    done = run(out)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "t0.jsonl:6 is not a whole row" in done.stderr


def test_one_run_and_one_unfinished_run_are_folders_too(out):
    assert run(out / "one").returncode == 0
    assert run(out / "two").returncode == 0


def test_against_adds_paired_differences(out, row):
    write(out / "defended" / "rows.jsonl", [row(attack="dlg", defense="clip")])
    write(out / "control" / "rows.jsonl", [row(control="mean_image"), row(control="shuffled_update")])
    done = run(out, "--against", "ig")
    assert done.returncode == 0
    _, differences = done.stdout.split("minus attack ig")
    lines = [line.split() for line in differences.splitlines() if line.startswith(("gias", "dlg", "mean"))]
    # 5, 4, 4, 5, 4.5; neither another defense nor a control is compared.
    assert {line[0] for line in lines} == {"gias"}
    assert " ".join(lines[0]).startswith("gias none 5 +4.500 [3.88, 5.12] better")
    assert "+4.500" in (out / "leaderboard.md").read_text()


def test_nothing_to_compare_is_reported(out):
    done = run(out / "one", "--against", "ig")
    assert done.returncode == 0
    assert "no other attack" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere"], "no such folder"),
        (["empty"], "no rows"),
        ([".", "--against", "dlg"], "There are: gias, ig."),
        ([".", "--metric", "hue"], "There are: psnr, ssim,"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(out, arguments, named):
    (out / "empty").mkdir()
    (out / "two" / "parts" / "t0.jsonl").write_text(
        "\n".join((out / "two" / "parts" / "t0.jsonl").read_text().splitlines()[:5])
    )
    done = run(out / arguments[0], *arguments[1:])
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("leaderboard: ")
    assert done.stderr.count("\n") == 1
    assert named in done.stderr
    assert not (out / "leaderboard.md").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "the following arguments are required: out; see --help."),
        (["."], "no such folder: "),
        ([""], "no rows under ."),
        ([".", "more"], "unrecognized arguments: more; see --help."),
        ([".", "--metrik=ssim"], "unrecognized arguments: --metrik=ssim; see --help."),
        ([".", "--metric"], "argument --metric: expected one argument; see --help."),
        ([".", "--group=mine"], "--group is of W&B; give --from-wandb or --to-wandb too"),
        ([".", "--from-wandb=me"], "'me' is not a W&B project; write ENTITY/PROJECT."),
        ([".", "--to-wandb=a/b/c"], "'a/b/c' is not a W&B project; write ENTITY/PROJECT."),
    ],
)
def test_a_command_that_cannot_be_read_is_one_line_too(tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").touch()
    given = [str(tmp_path / "rows.jsonl") if word == "." else word for word in arguments]
    assert main(given) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("leaderboard: ")
    assert printed.err.count("\n") == 1
    assert named in printed.err


def test_a_file_that_cannot_be_written_is_one_line(out, capsys):
    (out / "leaderboard.md").mkdir()
    assert main([str(out)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"leaderboard: cannot write {out / 'leaderboard.md'} (Is a directory); ")


def test_ctrl_c_is_one_line(out, monkeypatch, capsys):
    def interrupted(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("leaderboard.__main__.gather", interrupted)
    assert main([str(out)]) == 130
    assert capsys.readouterr().err == "leaderboard: stopped; the same command begins anew.\n"


def test_nothing_heavy_is_imported():
    code = "import sys, leaderboard.__main__; sys.exit(bool({'torch', 'scipy', 'matplotlib'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_reader_that_leaves_gets_all_files_and_no_traceback(out):
    with subprocess.Popen(
        [sys.executable, "-m", "leaderboard", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as board:
        board.stdout.close()
        said = board.stderr.read().decode()
    assert board.returncode == 141, "as the shell says of a command that SIGPIPE ended"
    assert "cannot write" not in said
    assert "Traceback" not in said
    assert all((out / f"leaderboard.{kind}").is_file() for kind in ("md", "csv", "html"))
