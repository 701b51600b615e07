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
    *program, target = shlex.split(line)[:4]
    assert [*program, target] == ["python", "-m", "benchmark", "run"]
    return read(shlex.split(line)[4:])


def made_by_make(line: str) -> Config:
    """The configuration that the same values give as variables of make."""
    words = [word.removeprefix("--").partition("=") for word in shlex.split(line)[4:]]
    variables = [f"{name.upper().replace('-', '_')}={value}" for name, _, value in words]
    done = subprocess.run(["make", "-n", "bench", *variables], cwd=ROOT, capture_output=True, text=True, timeout=60)
    (run,) = (line for line in done.stdout.splitlines() if "benchmark run" in line)
    return read(shlex.split(run)[4:])


def read(options: list[str]) -> Config:
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
    assert command(config, More) == "python -m benchmark run --method=ig '--color=deep blue'"
    assert command(config | {"color": "red"}, More) == "python -m benchmark run --method=ig"


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
    assert same(made_by_make(line), config)


def test_only_what_differs_from_the_defaults_is_in_the_command():
    config = Config(attack="ig", batch=1)
    line = command(yaml.safe_load(dump(config, {})))
    assert line == f"python -m benchmark run --method=ig --preset={config.preset} --batch=1"
    assert config.preset in ("tuned", "default")  # whatever is tuned later, it repeats this run


def test_from_rows_alone(row):
    rows = [row(task=task, defense="none", options={"plan": {"x": 100}, "tv": "0.1"}) for task in ("t0", "t1")]
    rows = [r | {"precision": "float32", "preset": "default"} for r in rows]
    line = command(config_of_rows(rows))
    options = "--method=ig --preset=default --batch=2 --defense=none --restarts=1 --steps=100 --set=tv=0.1 --tasks=2"
    assert line == f"python -m benchmark run {options}"
    inferred = [r | {"labels": "inferred", "label_method": "alr"} for r in rows]
    assert "--labels=alr" in command(config_of_rows(inferred)).split()
    joint = [r | {"labels": "joint"} for r in rows]
    assert "--labels=none" in command(config_of_rows(joint)).split()


HOSTILE = [
    "$(touch hit)", "`touch hit`", "'; touch hit; '", '"; touch hit; "', "x\ntouch hit\n", "$(shell touch hit)",
    "${HOME}", "a & touch hit", "| touch hit", "> hit", "\x1b[201~\ntouch hit", "\\'; touch hit #",
    "é\t'\\x41", "!!", "-n", "*",
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("key", ["attack", "defense", "set"])
def test_a_pasted_command_runs_nothing_but_itself(key, value, tmp_path):
    stub = tmp_path / "bin" / "python"
    stub.parent.mkdir()
    stub.write_text('#!/bin/bash\nprintf \'%s\\0\' "$@" > "$GIVEN"\n')
    stub.chmod(0o755)
    line = command({"attack": "ig", key: [value] if key == "set" else value})
    assert line.isprintable()
    (tmp_path / "here").mkdir()
    environment = {"PATH": f"{stub.parent}:/usr/bin:/bin", "GIVEN": str(tmp_path / "given")}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path / "here", env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    words = (tmp_path / "given").read_text().split("\0")[:-1]
    assert words[:3] == ["-m", "benchmark", "run"]
    assert words[-1 if key != "attack" else 3] == f"--{'method' if key == 'attack' else key}={value}"
    assert not list((tmp_path / "here").iterdir())


def test_tuned_options_off_their_track_are_repeated_by_their_values(row):
    tuned = row() | {"preset": "tuned", "options": {"plan": {"x": 3}, "eta": 0.2}}
    on, off = (config_of_rows([tuned | {"track": track}]) for track in ("cifar10-b1", ""))
    assert (on["preset"], off["preset"], off["set"]) == ("tuned", "default", ["eta=0.2"])
