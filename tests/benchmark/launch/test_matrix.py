"""Several attacks and defenses on one command line. Cells are run in this process but for the last test."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from attacks.base import Attack
from benchmark.__main__ import main
from benchmark.command_line import expanded, run_parser
from benchmark.launch import matrix

ROOT = Path(__file__).resolve().parents[3]
SMALL = ["--victim=lenet", "--batch=1", "--tasks=2", "--size=16", "--steps=2", "--restarts=1", "--devices=1"]
CROSSED = ["--attack=ig,dlg", "--defense=none,sparsification:0.5", "--adapt=both"]


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """The command with these options; every cell's command line is kept in `run.cells`."""

    def cell(command, check):
        assert command[:3] == [sys.executable, "-m", "benchmark"]
        run.cells.append(command[3:])
        return subprocess.CompletedProcess(command, main(command[3:]))

    def run(*options, code=0):
        run.cells = []
        assert main(["run", *SMALL, "--wandb=off", f"--out={tmp_path}", *options]) == code
        return capsys.readouterr()

    monkeypatch.setattr(matrix, "subprocess", SimpleNamespace(run=cell))  # of that module alone
    monkeypatch.setattr(matrix, "available_to", lambda *options: [])
    return run


# Which cells there are.


def test_lists_are_multiplied_where_they_stand():
    cells = expanded(["run", "--attack=ig,dlg", "--set+=tv=1,2", "--defense", "none,a:1+b:2", "--seed=3"])
    assert cells == [
        ["run", f"--attack={attack}", "--set+=tv=1,2", f"--defense={defense}", "--seed=3"]
        for attack in ("ig", "dlg")
        for defense in ("none", "a:1+b:2")
    ]


def adapts(cell):
    return run_parser("run", "").parse_args(cell[1:]).adapt


@pytest.mark.parametrize("adapt", ["yes", "no", "true", "false"])
def test_one_attacker_is_one_cell_and_means_what_it_says(adapt):
    (cell,) = expanded(["run", "--attack", "ig", f"--adapt={adapt}"])
    assert cell == ["run", "--attack=ig", f"--adapt={adapt}"]
    assert adapts(cell) is (adapt in ("yes", "true"))


def test_both_attackers_are_two_cells():
    cells = [adapts(cell) for cell in expanded(["run", "--adapt", "both"])]
    assert cells == [True, False]


# What becomes of them.


def test_every_cell_is_run_once_and_all_stand_in_one_matrix(run, tmp_path, monkeypatch):
    printed = run(*CROSSED).out
    said = re.findall(r"cell (\d) of 6: (.*)", printed)
    assert said == [
        (str(number), name)
        for number, name in enumerate(
            [
                f"{attack}, {rest}"
                for attack in ("ig", "dlg")
                for rest in ("none", "sparsification:0.5, adaptive", "sparsification:0.5, non-adaptive")
            ],
            start=1,
        )
    ]
    lines = [json.loads(line) for file in tmp_path.glob("*/rows.jsonl") for line in file.read_text().splitlines()]
    assert sorted({(line["attack"], line["defense"], line["adapt"]) for line in lines}) == [
        (attack, defense, adapt)
        for attack in ("dlg", "ig")
        for defense, adapt in (("none", False), ("sparsification:0.5", False), ("sparsification:0.5", True))
    ]
    document = (tmp_path / "matrix.md").read_text()
    assert re.search(r"\| attack \| none \| sparsification:0\.5 \|", document)
    assert {name for name in re.findall(r"^\| ([^|]+) \|", document, re.M) if "," in name} == {
        f"{attack}, {kind}" for attack in ("ig", "dlg") for kind in ("adaptive", "non-adaptive")
    }
    mean = sum(line["psnr"] for line in lines if (line["attack"], line["defense"]) == ("ig", "none")) / 2
    assert f"{mean:#.4g}" in document
    assert (tmp_path / "matrix.png").is_file()
    assert printed.endswith(f"matrix   {tmp_path / 'matrix.md'}\nmatrix   {tmp_path / 'matrix.png'}\n")
    monkeypatch.setattr(Attack, "training_step", lambda *_: pytest.fail("it was run again"))
    assert run(*CROSSED).out == printed


def test_a_refused_cell_is_named_and_stops_no_other(run, tmp_path):
    printed = run("--attack=rgap,ig", "--defense=none,sparsification:0.5", "--batch=1", code=2)
    assert len(run.cells) == 4
    assert printed.err.splitlines()[-1] == (
        "benchmark: no result from 2 of 4 cells: rgap, none (refused); rgap, sparsification:0.5, adaptive (refused)."
    )
    assert "rgap has no steps to choose" in printed.err
    assert "| ig |" in (tmp_path / "matrix.md").read_text()


def test_a_cell_that_breaks_is_told_from_one_that_is_refused(run, monkeypatch):
    killed = SimpleNamespace(run=lambda command, check: subprocess.CompletedProcess(command, -9))
    monkeypatch.setattr(matrix, "subprocess", killed)
    assert (
        "2 of 2 cells: ig, none (exit code -9); dlg, none (exit code -9)."
        in run("--attack=ig,dlg", "--defense=none", code=1).err
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--attack=ig,gais"], "did you mean 'gias'"),
        (["--attack=ig,"], "unknown attack ''"),
        (["--defense=none,sparsify:1"], "did you mean 'sparsification'"),
        (["--defense=none,sparsification:1"], "rate"),
        (["--attack=ig,dlg", "--steps=many"], "steps takes int"),
    ],
)
def test_what_no_cell_can_mean_is_refused_before_the_first(options, expected, run, tmp_path):
    printed = run(*options, code=2)
    assert run.cells == []
    assert printed.err.count("\n") == 1
    assert re.search(expected, printed.err)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_stops_the_cell_and_the_matrix(run, monkeypatch):
    started = []

    def interrupted(command, check):
        started.append(command)
        raise KeyboardInterrupt

    monkeypatch.setattr(matrix, "subprocess", SimpleNamespace(run=interrupted))
    assert (
        "stopped at ig, none; the same command goes on there" in run("--attack=ig,dlg", "--defense=none", code=130).err
    )
    assert len(started) == 1


def test_cells_that_mean_the_same_are_run_once(run, tmp_path):
    printed = run("--attack=ig,ig", "--defense=none", "--adapt=both").out
    assert "cell 1 of 1" in printed
    assert len(run.cells) == 1
    run("--attack=ig", "--defense=none")
    assert run.cells == []
    assert len(list(tmp_path.glob("*/rows.jsonl"))) == 1


def test_make_hands_lists_on():
    made = subprocess.run(
        ["make", "-n", "-o", ".venv/.ready", "bench", "METHOD=ig,gias", "DEFENSE=none,noise:0.1", "ADAPT=both"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert all(option in made for option in ("--method='ig,gias'", "--defense='none,noise:0.1'", "--adapt='both'"))


@pytest.mark.slow
def test_cells_are_processes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "run", *SMALL, "--devices=2", "--attack=ig", "--wandb=off",
         "--defense=none,sparsification:0.5", f"--out={tmp_path}"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "PSNR by attack and defense, n = 2" in done.stdout
