"""The documentation of options, and what a new option needs."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmark import command_line
from benchmark.commands import COMMANDS, imported
from benchmark.option_table import table
from leaderboard.options import Options, abouts, defaults, option

ROOT = Path(__file__).resolve().parents[2]
MAKE = ("make", "-n", "-o", ".venv/.ready")
ALONE = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # not under `make test`


@dataclass(frozen=True, kw_only=True)
class More(Options):
    moon: int = option(3, "setting", "Phase of the moon.")


def test_the_table_in_the_docs_is_current():
    assert (ROOT / "docs" / "options.md").read_text() == table(), "run: make docs"


def test_a_new_option_is_in_the_table_and_on_the_command_line(monkeypatch):
    """In rows, columns and the repeat command too: tests/leaderboard/test_new_option.py, test_leaderboard_repeat.py."""
    assert "| `MOON=` | `3` | Phase of the moon. | `moon` |" in table(More)
    monkeypatch.setattr(command_line, "Options", More)
    monkeypatch.setattr(command_line, "abouts", lambda: abouts(More))
    monkeypatch.setattr(command_line, "defaults", lambda: defaults(More))
    parser = command_line.run_parser("run", "")
    assert parser.parse_args(["--moon=4"]).moon == 4
    assert "Phase of the moon" in parser.format_help()


@pytest.mark.parametrize("target", ["bench", "submit", "audit", "reproduce", "leaderboard", "list"])
def test_make_hands_on_whatever_is_given(target):
    given = {"MOON_PHASE": "3", "DATA": "folder:/a b/$HOME", "LABELS": "it's", "SET": "tv=1e-3 eta=0.05", "X": 'a"b`c'}
    made = subprocess.run(
        [*MAKE, target, *(f"{name}={value}" for name, value in given.items())],
        cwd=ROOT, capture_output=True, text=True, check=True, env=ALONE,
    ).stdout  # fmt: skip
    words = subprocess.run(
        ["bash", "-c", made.replace(".venv/bin/python -m", "printf '%s\\n'")],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    expected = [f"--{name.lower().replace('_', '-')}={value}" for name, value in given.items()]
    assert {word for word in words if word.startswith("--")} >= set(expected)
    assert len([word for word in words if word.startswith("--")]) == len(given)


def test_other_ways_to_write_an_option():
    assert command_line.normalized(["run", "--weights=w", "--mode", "train", "--mini-batch=2"]) == [
        "run", "--weights_dir=w", "--victim_mode", "train", "--mini_batch=2",
    ]  # fmt: skip
    assert command_line.normalized(["--set="]) == ["--set=[]"]  # clears that of a config
    assert command_line.expanded(["--attack=ig, gias"]) == [["--attack=ig"], ["--attack=gias"]]
    assert command_line.normalized(["--set=a=1 b=2", "--set+=c=3"]) == ["--set+=a=1", "--set+=b=2", "--set+=c=3"]


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"run", "submit"}))
def test_every_option_of_every_command_is_explained(command):
    parser = command_line.parser_of(imported(command), command, "")
    assert [action.dest for action in parser._actions if not action.help] == []


def test_a_method_in_the_environment_is_not_silently_ignored():
    done = subprocess.run(
        [*MAKE, "bench"],
        cwd=ROOT, capture_output=True, text=True, check=False, env=ALONE | {"METHOD": "ig"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "make bench METHOD=ig" in done.stderr
