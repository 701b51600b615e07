"""Models for 32 and 64 px against the originals that they are small-image forms of, and against published counts."""

from itertools import pairwise

import pytest
import torch
import torchvision
from torch import nn

from victims.models.alexnet import AlexNet
from victims.models.convnet64 import ConvNet64
from victims.models.densenet121 import DenseNet121
from victims.models.resnet34 import ResNet34
from victims.models.resnet50 import ResNet50
from victims.models.vgg16 import VGG16
from victims.modules import build


def make_one(make, size=32, channels=3, num_classes=10):
    return build(make, image_shape=(channels, size, size), num_classes=num_classes, seed=0).eval()


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def original(name):
    """torchvision's, without memory."""
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, num_classes=10)


def parameter_count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "name", "stem"),
    [
        (ResNet34, "resnet34", "conv1.weight"),
        (ResNet50, "resnet50", "conv1.weight"),
        (DenseNet121, "densenet121", "features.conv0.weight"),
    ],
)
def test_all_but_the_stem_is_torchvisions(make, name, stem):
    ours, theirs = shapes(make_one(make)), shapes(original(name))
    assert theirs.pop(stem) == (64, 3, 7, 7)
    assert ours.pop(stem) == (64, 3, 3, 3)
    assert ours == theirs


@pytest.mark.parametrize(
    ("make", "entry"), [(ResNet34, "layer1"), (ResNet50, "layer1"), (DenseNet121, "features.denseblock1")]
)
def test_the_stem_keeps_the_size_and_starts_like_the_other_convolutions(make, entry):
    model, seen = make_one(make), {}
    model.get_submodule(entry).register_forward_pre_hook(lambda _, given: seen.update(shape=given[0].shape))
    model(torch.rand(1, 3, 32, 32))
    assert seen["shape"] == (1, 64, 32, 32)
    stem = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    fan = 3 * 9 if make is DenseNet121 else 64 * 9  # He's initialization, as torchvision has it in each
    assert stem.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.1)


def test_vgg16_has_the_convolutions_of_configuration_d():
    model = make_one(VGG16)
    assert shapes(model.features) == shapes(original("vgg16_bn").features)
    assert parameter_count(model) == 14_728_266  # of kuangliu/pytorch-cifar's


def test_alexnet_has_the_convolutions_of_torchvisions():
    model, theirs = make_one(AlexNet), original("alexnet")
    assert shapes(model.features) == shapes(theirs.features)
    assert model.classifier.weight.shape == (10, 256)  # a map of one pixel
    strides = [[m.stride for m in net.features if isinstance(m, nn.Conv2d)] for net in (model, theirs)]
    assert strides[0] == strides[1]


def test_convnet64_is_that_of_geiping_et_al():
    """The lines of the released code: conv0, conv1, ..., conv5, pool, conv6 (written twice, kept once), conv7, pool."""
    model = make_one(ConvNet64)
    kinds = {nn.Conv2d: "c", nn.BatchNorm2d: "b", nn.ReLU: "r", nn.MaxPool2d: "p"}
    assert "".join(kinds[type(layer)] for layer in model.features) == 6 * "cbr" + "p" + 2 * "cbr" + "p"
    widths = [3, 64, 128, 128, 256, 256, 256, 256, 256]
    kernels = sum(9 * a * b for a, b in pairwise(widths))
    assert parameter_count(model) == kernels + 3 * sum(widths[1:]) + 36 * 64 * 10 + 10
    assert parameter_count(model) == 2_904_970


@pytest.mark.parametrize("make", [AlexNet, VGG16, ConvNet64])
def test_the_classifier_sees_all_of_the_last_map(make):
    """Position is not averaged away: at 64 px every feature has a weight of its own."""
    model = make_one(make, 64)
    rows = 7 if make is ConvNet64 else 2
    assert model.features(torch.rand(1, 3, 64, 64)).shape == (1, model.classifier.in_features // rows**2, rows, rows)


@pytest.mark.parametrize("make", [AlexNet, VGG16, ConvNet64, ResNet34, DenseNet121])
def test_other_channels_and_classes(make):
    assert make_one(make, channels=1, num_classes=7)(torch.rand(2, 1, 32, 32)).shape == (2, 7)


def test_sizes_that_are_no_power_of_two():
    for make, size in ((AlexNet, 61), (VGG16, 50), (ConvNet64, 31)):
        assert make_one(make, size)(torch.rand(1, 3, size, size)).shape == (1, 10)
