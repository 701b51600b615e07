"""What CONTRIBUTING.md shows works as it is written, from outside: one file each, and no other edited."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.scoring.metrics import METRICS

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text()
OTHERS = ("defense", "prior", "victim", "loss", "data", "metric")
EXAMPLES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """The examples as files of a folder on the path."""
    for name, code in EXAMPLES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in EXAMPLES:
        sys.modules.pop(name, None)
    METRICS.pop("largest_error", None)


def run(out, *options):
    few = ["--batch=2", "--tasks=1", "--steps=4", "--restarts=1", "--devices=1", "--wandb=off"]
    assert main(["run", f"--out={out}", *few, *options]) == 0
    (file,) = out.glob("*/rows.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_kind_has_its_file():
    kinds = re.findall(r"^## Add an? (.*)$", TEXT, re.MULTILINE)
    assert kinds == ["attack", "defense", "prior", "victim", "loss", "data set", "metric"]
    assert list(EXAMPLES) == ["my_attack", "my_denoised_attack", *(f"my_{kind}" for kind in OTHERS)]


def test_own_attack_defense_victim_and_data_in_one_run(outside, capsys):
    rows = run(
        outside / "out",
        "--attack=my_attack.IGMedian",
        "--defense=my_defense.Rounding:3",
        "--victim=my_victim.Patches",
        "--data=my_data.Stripes",
        "--loss=my_loss.Poly:2",
    )
    assert [(row["attack"], row["victim"], row["loss"], row["status"]) for row in rows] == [
        ("my_attack.IGMedian", "my_victim.Patches", "my_loss.Poly:2", "ok")
    ] * 2
    assert all(row["image"].startswith("test-") for row in rows)
    assert "PSNR" in capsys.readouterr().out


def test_own_attack_with_a_denoiser(outside):
    rows = run(outside / "out", "--attack=my_denoised_attack.IGMedianDenoised", "--set=eta_d=0.1 tv=0.01")
    assert [(row["attack"], row["prior"], row["status"]) for row in rows] == [
        ("my_denoised_attack.IGMedianDenoised", "denoiser-photos", "ok")
    ] * 2


def test_own_prior(outside):
    rows = run(outside / "out", "--attack=gias", "--prior=my_prior.Clouds:32")
    assert [(row["prior"], row["status"]) for row in rows] == [("my_prior.Clouds:32", "ok")] * 2


def test_own_metric(outside, capsys):
    importlib.import_module("my_metric")
    rows = run(outside / "out", "--attack=ig", "--victim=lenet")
    assert all(0 < row["largest_error"] <= 1 and row["higher_is_better"]["largest_error"] is False for row in rows)
    assert "largest error" in capsys.readouterr().out.lower().replace("_", " ")


def test_what_the_examples_refuse(outside, capsys):
    wrong = ["--attack=ig", "--defense=my_defense.Rounding:-1", "--wandb=off", f"--out={outside / 'out'}"]
    assert main(["run", *wrong]) == 2
    assert "rounding takes 0 decimals or more, not -1" in capsys.readouterr().err
