"""What CONTRIBUTING.md shows works as it is written, from outside: one file each, and no other edited."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch

import gibench
from benchmark.__main__ import main
from benchmark.scoring.metrics import METRICS

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text()
OTHERS = ("defense", "prior", "victim", "loss", "label_method", "optimizer", "data", "metric")
EXAMPLES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """The examples as files of a folder on the path."""
    for name, code in EXAMPLES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in (*EXAMPLES, "my_scored_attack"):
        sys.modules.pop(name, None)
    METRICS.pop("largest_error", None)


def run(out, *options):
    few = ["--batch=2", "--tasks=1", "--steps=4", "--restarts=1", "--devices=1", "--wandb=off"]
    assert main(["run", f"--out={out}", *few, *options]) == 0
    (file,) = out.glob("*/rows.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_kind_has_its_file():
    kinds = re.findall(r"^## Add an? (.*)$", TEXT, re.MULTILINE)
    others = ["defense", "prior", "victim", "loss", "label method", "local optimizer", "data set", "metric"]
    assert kinds == ["attack", *others]
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


def test_own_label_method(outside):
    rows = run(outside / "out", "--attack=ig", "--victim=lenet", "--labels=my_label_method.lowest_bias")
    found = [(row["labels"], row["label_method"], row["status"]) for row in rows]
    assert found == [("inferred", "my_label_method.lowest_bias", "ok")] * 2


def test_own_label_method_finds_distinct_labels(outside):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    labels = torch.tensor([3, 1])
    observation = gibench.capture(net, torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(0)), labels)
    found = importlib.import_module("my_label_method").lowest_bias(observation)
    assert found.tolist() == [1, 3]


def test_own_local_optimizer(outside):
    local = ["--local-optimizer=my_optimizer.RMSprop:0.9", "--lr=0.01", "--epochs=2", "--match=fa"]
    rows = run(outside / "out", "--attack=ig", "--victim=lenet", "--defense=none", *local)
    assert [(row["local_optimizer"], row["status"]) for row in rows] == [("my_optimizer.RMSprop:0.9", "ok")] * 2


def test_own_local_optimizer_takes_the_steps_of_torch(outside):
    rule, state = importlib.import_module("my_optimizer").RMSprop(0.9), {}
    ours = torch.tensor([1.0, -2.0], dtype=torch.float64)
    torchs = ours.clone().requires_grad_()
    optimizer = torch.optim.RMSprop([torchs], lr=0.1, alpha=0.9)
    for step in range(1, 4):
        torchs.grad = 2 * torchs.detach()
        optimizer.step()
        ours = ours - 0.1 * rule.direction({"x": ours}, {"x": 2 * ours}, state, step)["x"]
    torch.testing.assert_close(ours, torchs.detach())


def test_own_metric(outside, capsys):
    importlib.import_module("my_metric")
    rows = run(outside / "out", "--attack=ig", "--victim=lenet")
    assert all(0 < row["largest_error"] <= 1 and row["higher_is_better"]["largest_error"] is False for row in rows)
    assert "largest error" in capsys.readouterr().out.lower().replace("_", " ")


def test_own_metric_that_the_file_of_an_attack_imports(outside):
    (outside / "my_scored_attack.py").write_text("import my_metric\nfrom my_attack import IGMedian as Mine\n")
    rows = run(outside / "out", "--attack=my_scored_attack.Mine", "--victim=lenet")
    assert all(0 < row["largest_error"] <= 1 for row in rows)


def test_own_metric_is_in_the_scores_of_python(outside):
    importlib.import_module("my_metric")
    truth = 0.5 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert gibench.score(truth + 0.25, truth)["largest_error"] == pytest.approx([0.25])


def test_what_the_examples_refuse(outside, capsys):
    wrong = ["--attack=ig", "--defense=my_defense.Rounding:-1", "--wandb=off", f"--out={outside / 'out'}"]
    assert main(["run", *wrong]) == 2
    assert "rounding takes 0 decimals or more, not -1" in capsys.readouterr().err
