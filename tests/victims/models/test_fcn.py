"""The fully connected victim of any width, and its name on the command line."""

from functools import partial

import pytest
import torch
from torch import nn

from benchmark.config import Config
from benchmark.contents import named_victim
from benchmark.registry import open_victim
from victims.by_name import find
from victims.errors import InputError
from victims.models.fcn import FCN
from victims.models.lenet import LeNet
from victims.modules import build


class Wide(nn.Module):
    """An own victim that takes the shape of the images as a positional argument."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int = 7) -> None:
        super().__init__()
        channels, height, side = image_shape
        self.fc = nn.Linear(channels * height * side, width)
        self.out = nn.Linear(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.fc(x.flatten(1)))


def widths(spec, shape=(3, 8, 8), classes=10):
    model = build(find(spec, open_victim), image_shape=shape, num_classes=classes, seed=0)
    return [(layer.in_features, layer.out_features) for layer in model.modules() if isinstance(layer, nn.Linear)]


def test_widths_are_those_of_the_name():
    assert widths("fcn:5") == [(192, 5), (5, 10)]
    assert widths("fcn:30x20x9", (1, 4, 5), 3) == [(20, 30), (30, 20), (20, 9), (9, 3)]
    assert widths("fcn") == [(192, 400), (400, 400), (400, 10)]
    assert widths(f"{__name__}.Wide:3") == [(192, 3), (3, 10)]


def test_fcn_is_affine_maps_with_relu_between_them():
    model = build(partial(FCN, "6x5"), image_shape=(2, 3, 3), num_classes=4, seed=0)
    x = torch.randn(7, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    p = dict(model.named_parameters())
    z = x.reshape(7, 18)
    for layer in ("fc1", "fc2"):
        z = (z @ p[f"{layer}.weight"].T + p[f"{layer}.bias"]).clamp(min=0)
    torch.testing.assert_close(model(x), z @ p["fc3.weight"].T + p["fc3.bias"])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("fcn:", "widths"),
        ("fcn:0", "widths"),
        ("fcn:4x", "widths"),
        ("fcn:4:4", "write fcn"),
        ("lenet:4", "write lenet"),
        ("fnc:4", "fcn"),
        (f"{__name__}.Wide:many", "width"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(spec, said):
    with pytest.raises(InputError, match=said) as refusal:
        widths(spec)
    assert "\n" not in str(refusal.value)


def test_the_content_of_a_run_holds_the_code_of_a_victim_with_an_argument():
    assert named_victim(Config(victim="fcn:4x4")) == [FCN]
    assert named_victim(Config(victim="lenet")) == [LeNet]
    assert named_victim(Config(victim="timm:resnet18")) == []
