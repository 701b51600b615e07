"""On which images a victim's layers are tried."""

import gc
import weakref

import pytest
import torch
from torch import nn

from victims.models.lenet import LeNet
from victims.models.resnet18 import ResNet18
from victims.modules import build
from victims.small_images import smallest
from victims.victim import Victim, converted

SIDE = 32


class Pooled(nn.Module):
    """Any size of images; `forward` of a subclass says what it does with them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, stride=2)
        self.other = nn.Conv2d(4, 4, 3, stride=2)
        self.classifier = nn.Linear(4, 10)

    def forward(self, x):
        return self.classifier(self.second(self.first(x)).mean((2, 3)))


class LargeClamped(nn.Sequential):
    """Its bounds depend on the size."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))

    def forward(self, x):
        return super().forward(x.clamp(-1.5 if x.shape[-1] > 24 else -9.5, 9.5))


class LargeShrunk(Pooled):
    def forward(self, x):
        return super().forward(nn.functional.avg_pool2d(x, 2) if x.shape[-1] > 24 else x)


class LargeByOtherWeights(Pooled):
    def forward(self, x):
        layer = self.other if x.shape[-1] > 24 else self.second
        return self.classifier(layer(self.first(x)).mean((2, 3)))


class OncePerEightRows(Pooled):
    def forward(self, x):
        return sum(super(OncePerEightRows, self).forward(rows) for rows in x.split(8, 2))


class LooksAtValues(Pooled):
    def forward(self, x):
        return super().forward(x) if x.sum().item() > 0 else 2 * super().forward(x)


class HoldsATensor(Pooled):
    """That no `to` moves."""

    def __init__(self):
        super().__init__()
        self.scale = torch.ones(4)

    def forward(self, x):
        return self.classifier(self.second(self.first(x)).mean((2, 3)) * self.scale)


def victim_of(model):
    return Victim(model, mean=(0.5,) * 3, std=(0.2,) * 3)


def side_of(model, size=SIDE):
    shape = smallest(victim_of(model), (2, 3, size, size))
    assert shape[:2] == (2, 3)
    assert shape[2] == shape[3]
    return shape[2]


@pytest.mark.parametrize("size", [16, 32, 64, 224])
def test_layers_that_take_any_size_are_tried_on_two_places_or_more(size):
    """Three halvings: 16 px leave 2 x 2 places."""
    model = build(ResNet18, image_shape=(3, size, size), num_classes=10, seed=0)
    assert side_of(model, size) == 16
    assert side_of(Pooled(), size) == 8


def test_a_side_that_becomes_one_in_the_task_too_may_be_one():
    model = build(ResNet18, image_shape=(3, 16, 16), num_classes=10, seed=0)
    assert side_of(nn.Sequential(nn.AvgPool2d(4), model)) == 32
    assert side_of(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))) == 8


@pytest.mark.parametrize(
    "model",
    [LargeClamped, LargeShrunk, LargeByOtherWeights, OncePerEightRows, LooksAtValues, HoldsATensor],
    ids=lambda model: model.__name__,
)
def test_a_model_that_does_something_else_on_small_images_is_tried_on_its_own(model):
    assert side_of(model()) == SIDE


def test_a_model_of_one_size_is_tried_on_it():
    assert side_of(build(LeNet, image_shape=(3, SIDE, SIDE), num_classes=10, seed=0)) == SIDE


def test_images_need_not_be_square():
    assert smallest(victim_of(Pooled()), (1, 3, 100, 8)) == (1, 3, 8, 8)
    assert smallest(victim_of(Pooled()), (1, 3, 100, 7)) == (1, 3, 8, 7)
    assert smallest(victim_of(Pooled()), (1, 3, 7, 7)) == (1, 3, 7, 7)


def test_it_is_found_once_for_a_victim_and_a_shape():
    victim = victim_of(Pooled())
    assert smallest(victim, (1, 3, 32, 32)) == (1, 3, 8, 8)
    victim.model.forward = None
    assert smallest(victim, torch.Size((1, 3, 32, 32))) == (1, 3, 8, 8)
    assert smallest(victim, (2, 3, 32, 32)) == (2, 3, 32, 32)
    held = weakref.ref(victim)
    del victim
    gc.collect()
    assert held() is None


def test_asking_leaves_the_victim_as_it_is():
    victim = victim_of(nn.Sequential(nn.BatchNorm2d(3), Pooled()))
    before = {name: tensor.clone() for name, tensor in victim.model.state_dict().items()}
    held = {name: tensor.data_ptr() for name, tensor in victim.model.state_dict().items()}
    smallest(victim, (2, 3, SIDE, SIDE))
    for name, tensor in victim.model.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.data_ptr() == held[name]


def test_a_converted_victim_computes_the_same_and_shares_nothing():
    victim = victim_of(nn.Sequential(nn.BatchNorm2d(3), Pooled()))
    double = converted(victim, "cpu", torch.float64)
    x = torch.rand(2, 3, 9, 9)
    logits = double.logits({}, x.double())
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits.float(), victim.logits({}, x))
    for name, tensor in double.model.state_dict().items():
        assert tensor.data_ptr() != victim.model.state_dict()[name].data_ptr()
    assert all(type(p) is nn.Parameter and not p.requires_grad for p in double.model.parameters())
