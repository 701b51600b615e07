"""Models with one input channel: run, audit and `gibench` from end to end."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import gibench
from benchmark.__main__ import main
from benchmark.audit import plan
from tests.benchmark.audit.test_audit import Quick
from victims.models.lenet import LeNet


class Gray(nn.Module):
    """A user's model of gray images."""

    def __init__(self, *, image_shape, num_classes):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 16 * 16, num_classes)

    def forward(self, x):
        return self.last(torch.sigmoid(self.first(x)).flatten(1))


OPTIONS = ["--size=16", "--batch=2", "--tasks=1", "--steps=3", "--restarts=1", "--devices=1", "--wandb=off"]


@pytest.fixture
def run(tmp_path):
    def run(*more):
        code = main(["run", "--attack=ig", *OPTIONS, f"--out={tmp_path}", *more])
        return code, [json.loads(line) for file in tmp_path.glob("*/rows.jsonl") for line in file.open()]

    return run


@pytest.mark.parametrize("victim", ["lenet", "convnet", f"{__name__}.Gray"])
def test_a_run_on_gray_images(victim, run, tmp_path):
    code, rows = run("--channels=1", f"--victim={victim}")
    assert code == 0
    assert {(row["channels"], row["status"]) for row in rows} == {(1, "ok")}
    assert all(None not in (row["psnr"], row["ssim"], row["fsim"], row["iip"]) for row in rows)
    for picture in tmp_path.glob("*/truth/*.png"):
        pixels = np.asarray(Image.open(io.BytesIO(picture.read_bytes())).convert("RGB"))
        assert (pixels == pixels[..., :1]).all()
        assert pixels.std() > 5


def test_the_mean_image_is_gray_too(run):
    code, rows = run("--channels=1", "--victim=lenet", "--control=mean_image")
    assert code == 0
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--channels=2"], "channels is 2; give 1 for shades of gray, or 3 for color"),
        (
            ["--channels=1", "--attack=gias"],
            "the prior makes (3, 32, 32) images, the task has (1, 16, 16); run with --channels 3",
        ),
        (["--channels=1", "--attack=ci_net"], "the task has (1, 16, 16); run with --channels 3"),
        ([f"--victim={__name__}.Gray"], "to have 1 channels, but got 3"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options, said, run, capsys):
    assert run(*options)[0] == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if said in line]
    assert line.startswith("benchmark: ")


def test_an_audit_of_a_model_of_gray_images(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "MOST", 10)
    random = np.random.default_rng(0)
    for place in range(3):
        (tmp_path / "mine" / "k").mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(random.integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize((20, 16))
        picture.save(tmp_path / "mine" / "k" / f"{place}.png")
    options = [f"--images={tmp_path / 'mine'}", "--size=16", "--channels=1", "--most=1", "--processes=1"]
    options += [f"--attacks={Quick.__module__}.Quick"]
    assert main(["audit", f"--model={__name__}:Gray", *options, f"--out={tmp_path / 'out'}"]) == 0
    (image,) = json.loads((tmp_path / "out" / "audit.json").read_text())["images"]
    assert image["verdict"] in ("exact", "recognisable", "partly", "not rebuilt")


def test_gibench_takes_gray_images():
    torch.manual_seed(0)
    model, images = LeNet(image_shape=(1, 16, 16), num_classes=10), torch.rand(2, 1, 16, 16)
    observation = gibench.capture(model, images, torch.tensor([1, 4]), mean=(0.5,), std=(0.25,))
    reconstruction = gibench.attack("ig", observation, steps=5, restarts=1)
    scores = gibench.score(reconstruction, images)
    assert reconstruction.pixels.shape == (1, 2, 1, 16, 16)
    assert all(value is None or np.isfinite(value) for values in scores.values() for value in values)
