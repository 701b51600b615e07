"""The measurement of speed: end to end on the smallest victim, and its arithmetic by hand."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests.command import Parser
from tests.speed import __main__ as speed
from tests.speed.cells import Cell
from tests.speed.memory import tensor_peak
from tests.speed.report import cells_table, columns, draw, page, starts_table, summary
from tests.speed.start import start
from victims.errors import InputError

ONE = ["--quick", "--method", "ig", "--victim", "lenet", "--restarts", "1", "--budget", "1"]


def test_the_quick_path_has_every_number_and_continues(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed, "code_version", lambda: "the same")  # also where files change meanwhile
    assert speed.main([*ONE, "--out", str(tmp_path)]) == 0
    kept = json.loads((tmp_path / "speed.json").read_text())
    assert kept["about"].keys() == {"device", "threads", "versions", "commit", "peak", "lightning"}
    assert kept["about"]["peak"]["flops_per_second"] > 1e8
    (record,), (start,) = kept["cells"], kept["starts"]
    cell = {"method": "ig", "victim": "lenet", "batch": 1, "restarts": 1, "size": 32}
    assert record["cell"] == start["cell"] == cell
    assert record["parameters"] == 15_826  # 3 and 12 channels through 5x5, 12 biases each, 768 features to 10 classes
    assert record["plan"] == {"x": 600}
    stage = record["stages"]["x"]
    assert 0 < len(stage["suite"]["wall"]) == len(stage["textbook"]["wall"]) == len(stage["breaching"]["wall"])
    assert stage["drift"] < 1e-3
    image = 3 * 32 * 32 * 4  # bytes
    assert min(stage["memory"].values()) > 4 * image + 4 * record["parameters"]
    assert record["summary"]["ratios"].keys() == {"textbook", "breaching", "authors"}
    assert all(start[name] > 0 for name in ("import", "task", "begin", "first_step"))
    assert (tmp_path / "speed.png").stat().st_size > 0
    assert "| ig | lenet | 1 | 1 | 32 |" in (tmp_path / "speed.md").read_text()

    monkeypatch.setattr(speed, "measured", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr(speed, "start", lambda *_: pytest.fail("measured again"))
    capsys.readouterr()
    assert speed.main([*ONE, "--out", str(tmp_path)]) == 0
    assert "lenet" in capsys.readouterr().out

    other = kept | {"about": kept["about"] | {"device": "another"}}
    (tmp_path / "speed.json").write_text(json.dumps(other))
    assert speed.main([*ONE, "--out", str(tmp_path)]) == 2
    assert "measured with another device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--method", "dlg", "there is no plain loop"),
        ("--batch", "0", "whole numbers from 1"),
        ("--compile", "yes", "off or on"),
        ("--victim", "lenet,foo", "unknown victim 'foo'"),
        ("--budget", "-1", "budget is -1"),
        ("--budget", "nan", "budget is nan"),
    ],
)
def test_a_bad_option_gives_one_line_before_anything_is_measured(tmp_path, capsys, monkeypatch, option, value, said):
    monkeypatch.setattr(speed, "measure", lambda *_: pytest.fail("measured"))
    assert speed.main(["--quick", option, value, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"about": {}}', '{"about": 3, "starts": [], "cells": []}'])
def test_a_damaged_file_gives_one_line(tmp_path, capsys, text):
    (tmp_path / "speed.json").write_text(text)
    assert speed.main([*ONE, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "speed.json is damaged; remove it" in said
    assert said.count("\n") == 1


def test_a_victim_that_cannot_take_the_images_is_refused_in_its_own_words():
    with pytest.raises(InputError, match=r"8px could not be measured: vgg16 .* choose another --size, .* --victim\.$"):
        start(Cell("ig", "vgg16", 1, 1, 8))


@pytest.fixture
def instant(monkeypatch):
    """What would be measured comes at once."""
    monkeypatch.setattr(speed, "machine", lambda: {"device": "a machine"})
    monkeypatch.setattr(speed, "matmul_peak", lambda: (1.0, [1.0]))
    monkeypatch.setattr(speed, "overhead", lambda cell: 0.0)
    monkeypatch.setattr(speed, "start", lambda cell: {"begin": 1.0})


def stopped(*_):
    raise KeyboardInterrupt


def test_a_start_is_kept_as_soon_as_it_is_measured(tmp_path, monkeypatch, instant):
    starts = iter([lambda: {"begin": 1.0}, stopped])
    monkeypatch.setattr(speed, "start", lambda cell: next(starts)())
    assert speed.main([*ONE, "--size", "32,64", "--out", str(tmp_path)]) == 130
    (kept,) = json.loads((tmp_path / "speed.json").read_text())["starts"]
    assert (kept["cell"]["size"], kept["begin"]) == (32, 1.0)


def test_another_budget_or_compiled_steps_are_measured_anew(tmp_path, monkeypatch, instant):
    """The same is not: what is measured first stops the command here."""
    cell = {"method": "ig", "victim": "lenet", "batch": 1, "restarts": 1, "size": 32}
    monkeypatch.setattr(speed, "measured", stopped)
    monkeypatch.setattr(speed, "cells_table", lambda about, shown: pytest.fail(f"reused {shown}"))
    record = {"cell": cell, "compile": False, "budget": 1.0}
    kept = {"about": speed.machine(), "starts": [], "cells": [record]}
    for more in (["--budget", "2"], ["--compile", "on"]):
        (tmp_path / "speed.json").write_text(json.dumps(kept))
        assert speed.main([*ONE, *more, "--out", str(tmp_path)]) == 130
    with pytest.raises(pytest.fail.Exception, match="reused"):
        speed.main([*ONE, "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("arguments", "quick"),
    [([], False), (["--quick"], True), *(([f"--quick={text}"], True) for text in ("yes", "Yes", "TRUE", "1", "on"))]
    + [([f"--quick={text}"], False) for text in ("no", "False", "0", "off", "")],
)
def test_quick_is_taken_as_it_is_usually_written(arguments, quick):
    parser = Parser()
    parser.add_quick("")
    assert parser.parse_args(arguments).quick is quick


def test_another_value_of_quick_is_refused_in_one_line(capsys):
    parser = Parser(prog="speed")
    parser.add_quick("")
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--quick=fast"])
    assert capsys.readouterr().err == "speed: argument --quick: 'fast' is neither yes nor no; see --help.\n"


@pytest.mark.parametrize("target", ["speed", "gpu-check"])
def test_make_hands_quick_on_as_it_was_typed(target):
    command = ["make", "-n", "-o", ".venv/.ready", target, "QUICK=On"]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # not under `make test`
    options = {"cwd": Path(__file__).parents[2], "env": alone, "capture_output": True, "text": True, "check": True}
    made = subprocess.run(command, **options)
    assert "--quick='On'" in made.stdout


def test_cells_differ_from_the_first_one_in_one_number():
    chosen = {"method": "ig,ggl", "victim": "lenet", "batch": "1,4", "restarts": "2,4", "size": "32,64"}
    found = speed.cells(chosen | {"compile": "off", "budget": 1.0})
    numbers = [(1, 2, 32), (4, 2, 32), (1, 4, 32)]
    of_ig = [Cell("ig", "lenet", *each) for each in [*numbers, (1, 2, 64)]]
    assert found == of_ig + [Cell("ggl", "lenet", *each) for each in numbers]


def test_the_peak_of_tensors_is_what_lives_at_once():
    """During the steps: 1 MiB from the set-up, 4 of the step, and 4 of its sum; not the 40 freed before."""
    kept = []

    def begin():
        torch.empty(40 * 2**20, dtype=torch.uint8)
        kept.append(torch.empty(2**20, dtype=torch.uint8))

    def step():
        a = torch.zeros(4 * 2**20, dtype=torch.uint8)
        a + a

    assert tensor_peak(begin, step, 3) == pytest.approx(9 * 2**20, abs=1024)


@pytest.fixture
def record():
    """Two stages: 3 steps of 1 s and 1 step of 5 s against twice as much; 2 operations per step each."""

    def times(seconds):
        return {"wall": [7.0], "processor": [seconds, seconds, 9.0]}

    stages = {
        name: {
            "suite": times(s),
            "textbook": times(2 * s),
            "authors": times(3 * s),
            "flops": 2,
            "drift": d,
            "ready": None,
            "memory": {"suite": 2**m, "textbook": 2**20},
        }
        for name, s, d, m in (("z", 1.0, 1e-6, 20), ("w", 5.0, 1e-4, 22))
    }
    return {
        "cell": {"method": "gias", "victim": "lenet", "batch": 4, "restarts": 1, "size": 32},
        "parameters": 10,
        "plan": {"z": 3, "w": 1},
        "stages": stages,
    }


def test_a_summary_by_hand(record):
    assert summary(record) == {
        "step": 2.0,
        "compiled": None,
        "ready": None,
        "others": {"textbook": 4.0, "breaching": None, "authors": 6.0},
        "ratios": {"textbook": 2.0, "breaching": None, "authors": 3.0},
        "memory": {"suite": 2**22, "textbook": 2**20},
        "flops_per_second": 1.0,
        "drift": 1e-4,
    }


def test_a_compiled_step_has_its_columns(record):
    for stage in record["stages"].values():
        stage |= {"compiled": {"wall": [0.25], "processor": []}, "ready": 8.0}
    shown = columns(record | {"summary": summary(record)})
    assert (shown["compiled ms"], shown["ready s"], shown["ms"]) == ("250", "16", "2e+03")


ABOUT = {"device": "a machine", "peak": {"flops_per_second": 10.0}, "lightning": 2e-4, "versions": {"torch": "2"}}
ABOUT |= {"threads": 1, "commit": "c"}


def test_page_and_picture_show_it(record, tmp_path):
    shown = [record | {"summary": summary(record)}]
    start = {"import": 3.0, "task": 0.5, "begin": 0.25, "first_step": 0.1, "memory": 2**21}
    text = page(ABOUT, [cells_table(ABOUT, shown), starts_table([{"cell": record["cell"], **start}])])
    assert "| 2e+03 | 2.00 | - | 3.00 | 4 / 1 | 1e-09 | 1e-04 |" in text
    assert "| lenet | 32 | 3 | 0.5 | 0.25 | 0.1 | 2 |" in text
    assert draw(tmp_path / "speed.png", shown).read_bytes().startswith(b"\x89PNG")
