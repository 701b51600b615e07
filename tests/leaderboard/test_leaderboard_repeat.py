"""The command that repeats a run gives make the configuration of that run."""

import shlex
import subprocess
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import pytest
import yaml

from benchmark.command_line import normalized, options_of, run_parser
from benchmark.config import Config, dump
from leaderboard.command import command
from leaderboard.command import config_of as config_of_rows
from leaderboard.options import Options, abouts, option

ROOT = Path(__file__).resolve().parents[2]
OF_ONE_MACHINE = {"devices", "nodes", "out", "wandb"}  # they change no row


@dataclass(frozen=True, kw_only=True)
class More(Options):
    color: str = option("red", "setting", "The color of everything.")


def made(line: str) -> Config:
    """The configuration that the command line gives to the suite."""
    program, target, *variables = shlex.split(line)
    assert (program, target) == ("make", "bench")
    done = subprocess.run(["make", "-n", "bench", *variables], cwd=ROOT, capture_output=True, text=True, timeout=60)
    (run,) = (line for line in done.stdout.splitlines() if "benchmark run" in line)
    _, _, _, _, *options = shlex.split(run)
    return Config(**options_of(run_parser("run", ""), normalized(options)))


def same(a: Config, b: Config) -> bool:
    keys = {field.name for field in fields(Config)} - OF_ONE_MACHINE
    return {key: asdict(a)[key] for key in keys} == {key: asdict(b)[key] for key in keys}


def test_every_option_that_changes_rows_is_repeated():
    assert {name for name, about in abouts().items() if about.changes_rows and not about.repeated} == set()
    assert {name for name, about in abouts().items() if not about.repeated} == OF_ONE_MACHINE


def test_a_new_option_is_repeated():
    config = asdict(More(attack="ig", color="deep blue"))
    config = {name: str(value) if isinstance(value, Path) else value for name, value in config.items()}
    assert command(config, More) == "make bench METHOD=ig COLOR='deep blue'"
    assert command(config | {"color": "red"}, More) == "make bench METHOD=ig"


@pytest.mark.parametrize(
    "config",
    [
        Config(attack="ig"),
        Config(attack="gifd", preset="paper", set=["variant=f", "ball=0.5"], data="pacs:sketch", adapt=False, seed=3),
        Config(attack="gi", lr=0.1, epochs=4, mini_batch=2, know_lr=False, match="fa", steps=30, data_dir=Path("a b")),
    ],
)
def test_make_runs_the_same_configuration(config, tmp_path):
    text = dump(replace(config, out=tmp_path, devices=7), {"plan": {"x": 3}})
    line = command(yaml.safe_load(text))
    assert str(tmp_path) not in line
    assert same(made(line), config)


def test_only_what_differs_from_the_defaults_is_in_the_command():
    assert command(yaml.safe_load(dump(Config(attack="ig", batch=1), {}))) == "make bench METHOD=ig BATCH=1"


def test_from_rows_alone(row):
    rows = [row(task=task, defense="none", options={"plan": {"x": 100}, "tv": "0.1"}) for task in ("t0", "t1")]
    rows = [r | {"precision": "float32", "preset": "default"} for r in rows]
    line = command(config_of_rows(rows))
    assert line == "make bench METHOD=ig BATCH=2 DEFENSE=none RESTARTS=1 STEPS=100 SET=tv=0.1 TASKS=2"
    inferred = [r | {"labels": "inferred", "label_method": "alr"} for r in rows]
    assert "LABELS=alr" in command(config_of_rows(inferred)).split()
    joint = [r | {"labels": "joint"} for r in rows]
    assert "LABELS=none" in command(config_of_rows(joint)).split()
