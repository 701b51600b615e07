"""ResNet-18 with group norm: the layers of the ResNet, normalized image by image."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

from benchmark.config import Config
from tests.zoo.check import outcome
from victims.by_name import of_timm
from victims.data.photos import Photos
from victims.errors import InputError
from victims.models.resnet18 import ResNet18
from victims.models.resnet18_gn import ResNet18GN
from victims.modules import build

SHAPE = {"image_shape": (3, 16, 16), "num_classes": 10}


def normalized(x, groups):
    """Every group of an image's channels by itself: Wu & He, eqs. 1, 2 and 7, on (B, C, H, W)."""
    y = torch.empty_like(x)
    width = x.shape[1] // groups
    for image in range(len(x)):
        for start in range(0, x.shape[1], width):
            values = x[image, start : start + width]
            mean = values.sum() / values.numel()
            variance = (values - mean).square().sum() / values.numel()
            y[image, start : start + width] = (values - mean) / (variance + 1e-5).sqrt()
    return y


@pytest.fixture
def model():
    return build(ResNet18GN, **SHAPE, seed=0).double()


@pytest.fixture
def images():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_all_but_the_normalization_is_resnet18():
    ours, theirs = (dict(build(make, **SHAPE, seed=0).named_parameters()) for make in (ResNet18GN, ResNet18))
    assert {name: p.shape for name, p in ours.items()} == {name: p.shape for name, p in theirs.items()}
    assert torch.equal(ours["conv1.weight"], theirs["conv1.weight"])


def test_every_normalization_is_by_32_groups_of_one_image(model, images):
    layers = [module for module in model.modules() if "Norm" in type(module).__name__]
    assert len(layers) == 20  # stem, 16 in the blocks, 3 in shortcuts
    for layer in layers:
        layer.register_forward_hook(
            lambda _, given, out: torch.testing.assert_close(out, normalized(given[0], 32))  # weight 1 and bias 0
        )
    model(images)


def test_no_image_depends_on_the_batch_in_either_mode(model, images):
    together, apart = model.train()(images), [model.eval()(image[None]) for image in images]
    torch.testing.assert_close(together, torch.cat(apart))
    before = deepcopy(model.state_dict())
    model.train()(images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_there_are_no_running_statistics_to_calibrate():
    with pytest.raises(InputError, match="keeps no running statistics"):
        Config(victim="resnet18_gn", victim_weights="calibrated", size=16).make_victim(Photos(split="test", size=16))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50_gn", "tf_efficientnet_lite0"])
@pytest.mark.filterwarnings("ignore")
def test_larger_ones_of_timm_run_on_every_path_of_gradients(name):
    """GroupNorm of timm's own; ReLU6, batch norm and depthwise convolutions."""
    make = partial(of_timm, name, image_shape=(3, 32, 32), num_classes=10)
    found = outcome(make, shape=(3, 32, 32), mode="eval")
    assert not found.refused
    assert len(found.errors) > 1
    assert max(found.errors.values()) < 1e-6
    assert any(isinstance(module, nn.GroupNorm) for module in make().modules()) == (name == "resnet50_gn")
