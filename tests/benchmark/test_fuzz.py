"""Whatever is typed ends with a result, or with one line and exit code 2; never with a traceback."""

import random
import shlex
from typing import get_args, get_type_hints

import pytest

from benchmark import run
from benchmark.__main__ import main
from benchmark.commands import COMMANDS
from benchmark.names import known
from leaderboard.options import Options, abouts, defaults
from victims.errors import InputError

SMALL = "--attack=ig --victim=lenet --size=16 --batch=1 --tasks=1 --steps=4 --restarts=1 --devices=1 --wandb=off"
ANYTHING = (
    "", "0", "-1", "2", "1e9", "nan", "inf", "none", "null", "both", "x", "a.b", ".", "..x", "a:b", "os.path",
    "os.path:join", "torch.nn.Linear", ",", "+", ":", "=", "a=b", "'", '"', "$HOME", "{", "[1", "{}",
    "!!python/object:x", "*a", "%s", "--", "\n", "a\tb", "a b", "é", "/", "/nowhere", "/dev/null",
    "99999999999999999999", __file__,
)  # fmt: skip
LIKELY = {
    "data": ("cifar10", "folder", "folder:/nowhere", "pacs", "pacs:x", "photos:3"),
    "split": ("train", "tune"),
    "victim": ("torchvision:x", "timm:x", "torch.nn.ReLU", "victims.models.lenet.LeNet"),
    "victim_weights": ("calibrated", "nofile.pt"),
    "lr": ("0.1", "-0.1"),
    "batches": ("distinct", "unbalanced"),
    "preset": ("paper", "code"),
    "prior": ("dcgan:x", "dcgan:32", "stylegan2:nofile", f"dcgan:{__file__}", "x.safetensors"),
    "seed": ("7", "-1", "99999999999999999999"),
    "restarts": ("1", "2", "0"),
    "steps": ("4", "0"),
    "defense": (
        "noise", "noise:0.1", "noise:nan", "noise:-1", "clipping:0", "clipping:1:x", "sparsification:2", "sign+sign",
        "quantization:0", "soteria:2:x", "dp_sgd:1:0.1", "precode:0", "label_confusion:0",
    ),
    "set": ("tv=1", "tv=x", "tv", "eta=0.1", "=1", "steps=2", "seed=1"),
}  # fmt: skip
ELSEWHERE = ("out", "devices", "nodes", "wandb")  # where results go and who computes: not for a test to try


@pytest.fixture
def lines(tmp_path):
    """300 command lines: most of them runs with up to three options, some right and some wrong."""
    draws = random.Random(0)
    hints = get_type_hints(Options)
    names = [name for name in defaults() if name not in ELSEWHERE]
    spelled = [*names, *(about.alias for about in abouts().values() if about.alias), "config", "mini-batch", "stepps"]
    there = {kind: list(known(kind)) for kind in ("attack", "data", "prior", "defense")}
    of = {about.alias: name for name, about in abouts().items() if about.alias}

    def value(name):
        name = of.get(name, name)
        choices = [str(choice) for choice in get_args(hints.get(name, str)) if isinstance(choice, str)]
        likely = [*choices, *LIKELY.get(name, ())]
        likely += there.get(name, [])
        return draws.choice(likely if likely and draws.random() < 0.8 else ANYTHING)

    def line():
        command = draws.choice(list(COMMANDS)) if draws.random() < 0.15 else "run"
        words = [*command.split(), *(shlex.split(SMALL) if command == "run" else ["--nonsense=1"])]
        words += [f"--out={tmp_path}"] if command == "run" else []
        for _ in range(draws.randint(1, 3)):
            name = draws.choice(spelled)
            words += draws.choice(4 * [[f"--{name}={value(name)}"]] + [[f"--{name}", value(name)], [f"--{name}"]])
        return words

    return [line() for _ in range(300)]


def test_no_command_line_ends_in_a_traceback(lines, monkeypatch, capsys):
    def first_step(*_):
        raise InputError("the first step is reached")

    monkeypatch.setattr(run.Trainer, "fit", first_step)
    wrong, reached = [], 0
    for words in lines:
        try:
            code = main(words)
        except Exception as error:
            wrong.append(f"{shlex.join(words)}: {error!r}")
            continue
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("benchmark: ")]
        reached += "benchmark: the first step is reached" in said
        if code not in (0, 2) or (code == 2 and not said):
            wrong.append(f"{shlex.join(words)}: exit code {code} and {len(said)} lines")
    assert not wrong, "\n".join(wrong)
    assert reached > 20  # wrong command lines only would show little


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--seed=99999999999999999999", "seed is 99999999999999999999; give a number below 2^63"),
        ("--tasks=99999999999999999999", "tasks is 99999999999999999999; give"),
        ("--labels=os.path", "'os.path' is not a function of an observation"),
        ("--labels=..x", "write a dotted path such as my.module.Name"),
        ("--attack=.", "write a dotted path such as my.module.Name"),
        ("--config=--", "--config takes a value, not '--'"),
    ],
)
def test_what_once_ended_in_a_traceback(option, expected, capsys, tmp_path):
    assert main(["run", *shlex.split(SMALL), f"--out={tmp_path}", option]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1
