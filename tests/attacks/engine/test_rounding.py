"""A victim whose gradient hardly depends on the images: what the user is told, and when nothing is said."""

import warnings

import pytest
import torch
from torch import nn

from attacks.dlg import DLG
from attacks.ig import IG
from victims.client import fed_sgd
from victims.errors import Notice
from victims.models.lenet import LeNet
from victims.models.resnet18 import ResNet18
from victims.models.sigmoid_resnet18_imagenet import SigmoidResNet18ImageNet
from victims.models.sigmoid_vgg11 import SigmoidVGG11


class ClosedIG(IG):
    analytic = True


def said(attack, *observations):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Notice)
        for observation in observations:
            attack.prepare(observation)
    found = [str(each.message) for each in caught if "costs are rounding alone" in str(each.message)]
    assert not any("\n" in each for each in found)
    return found


@pytest.mark.parametrize("model", [SigmoidVGG11, SigmoidResNet18ImageNet])
def test_a_cosine_below_one_rounding_is_said_once(model, capture):
    observation = capture((3,), size=16, rate=None, model=model).observation
    victim, draws = observation.victim, torch.Generator().manual_seed(5)
    one, other = (
        torch.cat(
            [
                g.flatten().double()
                for g in fed_sgd(victim, torch.rand(x, generator=draws), torch.zeros(1).long()).values()
            ]
        )
        for x in [(1, 3, 16, 16)] * 2
    )
    assert 1 - one @ other / one.norm() / other.norm() < 1e-10
    assert len(said(IG(steps_x=2), observation, observation)) == 1


def test_nothing_is_said_in_float64_nor_by_a_closed_form(capture):
    for dtype, method in ((torch.float64, IG), (torch.float32, ClosedIG)):
        observation = capture((3,), size=16, rate=None, model=SigmoidResNet18ImageNet, dtype=dtype).observation
        assert not said(method(steps_x=2), observation)


class OnlyFloat32(nn.Module):
    def __init__(self, *, image_shape, num_classes):
        super().__init__()
        self.linear = nn.Linear(image_shape[0], num_classes)

    def forward(self, x):
        return self.linear(x.float().mean((2, 3)))


def test_nothing_is_said_of_a_model_that_float64_stops(capture):
    assert not said(IG(steps_x=2), capture((3,), size=16, model=OnlyFloat32).observation)


@pytest.mark.parametrize("method", [IG, DLG])
@pytest.mark.parametrize(
    ("model", "training"), [(LeNet, False), (ResNet18, False), (ResNet18, True), (SigmoidResNet18ImageNet, True)]
)
def test_nothing_is_said_of_victims_that_tell_images_apart(model, training, method, capture):
    for indices in ((3,), (3, 50, 90)):
        if not training or len(indices) > 1:  # batch norm of one image and one place
            assert not said(method(steps_x=2), capture(indices, size=16, model=model, training=training).observation)
