"""The error of every layer against values set by hand."""

import csv
import math

import pytest
import torch
from PIL import Image
from torch import nn

from attacks.engine.stage import LayerReport
from attacks.rgap import RGAP
from benchmark.scoring import layers
from benchmark.scoring.layers import draw_layers, layer_errors, read_errors, write_layers
from leaderboard.run_folder import RunFolder
from victims.models.fcn3 import FCN3
from victims.victim import Victim


def report(layer, rebuilt, rank=5):
    return LayerReport(layer, rebuilt.numel(), 7, 3, rank, False, 1e-9, rebuilt)


@pytest.fixture
def victim():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.Flatten(), nn.Linear(2 * 2 * 2, 1, bias=False))
    return Victim(model, mean=(0.5,) * 3, std=(0.25,) * 3)


def test_errors_are_relative_to_what_the_private_image_sends_into_each_layer(victim):
    image = torch.rand(3, 4, 4)
    x = (image - 0.5) / 0.25
    hidden = victim.model[0](x[None]).flatten()
    reports = [report("2", hidden.double() * 1.1), report("0", torch.zeros(3, 4, 4).double())]
    errors = layer_errors(victim, image, reports)
    assert [layer for layer, _ in errors] == ["2", "0"]
    assert errors[0][1] == pytest.approx(0.1, rel=1e-5)
    assert errors[1][1] == pytest.approx(1.0)
    assert not victim.model[0]._forward_pre_hooks


def test_a_solved_task_has_errors_of_rounding(capture):
    task = capture((7,), size=16, rate=None, dtype=torch.float64, model=FCN3)
    attack = RGAP(restarts=2)
    attack.run([task.observation])
    errors = [layer_errors(task.observation.victim, task.images[0], reports) for reports in attack.reports]
    best, worst = sorted(errors, key=lambda image: image[-1][1])
    assert [layer for layer, _ in best] == ["fc3", "fc2", "fc1"]
    assert max(error for _, error in best) < 1e-12
    assert worst[0][1] == pytest.approx(2)  # the wrong label: everything is its negative


def test_table(tmp_path):
    reports = [report("fc", torch.zeros(8)), report("conv1", torch.zeros(3, 4, 4), rank=40)]
    folder, errors = RunFolder(tmp_path), [("fc", 0.5), ("conv1", 0.25)]
    write_layers(folder, "task-1", reports, errors)
    with (tmp_path / "layers" / "task-1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {
        "layer": "conv1",
        "unknowns": "48",
        "gradient_equations": "7",
        "weight_equations": "3",
        "rank": "40",
        "rank_is_bound": "False",
        "residual": "1e-09",
        "error": "0.25",
    }
    assert [row["layer"] for row in rows] == ["fc", "conv1"]
    assert read_errors(folder, ["task-0", "task-1"]) == [errors]  # of a task without a table there are none


@pytest.mark.parametrize("images", [1, 3])
def test_figure(images, tmp_path, monkeypatch):
    figures = []

    def write_figure(path, figure, write=layers.write_figure):
        figures.append(figure)
        write(path, figure)

    monkeypatch.setattr(layers, "write_figure", write_figure)
    errors = [[("fc", 0.0), ("conv2", 10.0**-k), ("conv1", math.exp(k))] for k in range(images)]
    path = draw_layers(tmp_path / "layers.png", errors, "cnn6")
    with Image.open(path) as picture:
        assert picture.width > 300
    (axis,) = figures[0].axes
    (line,), (band,) = axis.lines, axis.collections
    assert list(line.get_xdata()) == ["fc", "conv2", "conv1"]
    k = (images - 1) / 2  # its mean
    assert list(line.get_ydata()) == pytest.approx([-17, -k, k * math.log10(math.e)])
    spread = ((images**2 - 1) / 12) ** 0.5
    ends = [y for x, y in band.get_paths()[0].vertices if x == 1]  # of conv2
    assert (min(ends), max(ends)) == pytest.approx((-k - spread, -k + spread))
