"""ResNet-20 and ResNet-56 against He et al. (2016), section 4.2, and against trained weights."""

import pytest
import torch
from torch import nn

from tests.conftest import SHARED
from victims.checkpoints import load
from victims.data.cifar10 import CIFAR10
from victims.models.cifar_resnets import ShortcutA
from victims.models.resnet20 import ResNet20
from victims.models.resnet56 import ResNet56
from victims.modules import build
from victims.victim import Victim

FILES = SHARED / "data" / "cifar10", SHARED / "weights" / "cifar10"
needs_shared = pytest.mark.skipif(not all(f.is_dir() for f in FILES), reason="needs ../shared/{data,weights}/cifar10")
SHAPE = {"image_shape": (3, 32, 32), "num_classes": 10}


def parameters_of(blocks):
    """A stem of 16, three stages of pairs of 3x3 convolutions, shortcuts without parameters, a linear layer."""

    def conv(c_in, c_out):
        return 9 * c_in * c_out + 2 * c_out  # without bias, with batch norm

    total = conv(3, 16)
    for c_in, c_out in ((16, 16), (16, 32), (32, 64)):
        total += conv(c_in, c_out) + (2 * blocks - 1) * conv(c_out, c_out)
    return total + 64 * 10 + 10


@pytest.mark.parametrize(
    ("make", "layers", "blocks", "count"), [(ResNet20, 20, 3, 269_722), (ResNet56, 56, 9, 853_018)]
)
def test_layers_and_parameters(make, layers, blocks, count):
    model = build(make, **SHAPE, seed=0)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == layers
    assert sum(p.numel() for p in model.parameters()) == parameters_of(blocks) == count  # 0.27 M, 0.85 M there


def test_maps_are_32_16_and_8_wide():
    model, seen = build(ResNet20, **SHAPE, seed=0).eval(), []
    for stage in (model.layer1, model.layer2, model.layer3):
        stage.register_forward_hook(lambda _m, _given, out: seen.append(tuple(out.shape)))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert seen == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_shortcut_is_every_second_position_between_zeros(size):
    x = torch.rand(2, 4, *size)
    y = ShortcutA()(x)
    assert y.shape == (2, 8, -(-size[0] // 2), -(-size[1] // 2))
    assert not y[:, :2].any()
    assert not y[:, 6:].any()
    for channel in range(4):
        for row in range(y.shape[2]):
            for column in range(y.shape[3]):
                assert torch.equal(y[:, 2 + channel, row, column], x[:, channel, 2 * row, 2 * column])


@pytest.mark.shared
@needs_shared
@pytest.mark.parametrize(
    ("make", "file", "accuracy"), [(ResNet20, "resnet20-12fca82f.th", 91.7), (ResNet56, "resnet56-4bfd9763.th", 93.4)]
)
def test_trained_weights_classify_real_images(make, file, accuracy):
    """To within the error of 400 images; the weights' own normalization differs, by nothing that can be seen here."""
    data = CIFAR10(split="test", data_dir=SHARED / "data")
    model = build(make, **SHAPE, seed=0)
    load(model, FILES[1] / file, "it")
    victim = Victim(model, mean=data.mean, std=data.std)
    images, labels = data.batch(range(0, len(data), 2))
    with torch.no_grad():
        found = victim.logits(victim.parameters, victim.normalize(images)).argmax(1)
    assert 100 * (found == labels).double().mean().item() == pytest.approx(accuracy, abs=3)
