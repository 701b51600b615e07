"""The label rule against the label that the update was made with, on random nets."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from attacks.labels.base import classifier
from attacks.labels.idlg import idlg
from victims.client import fed_sgd
from victims.errors import InputError
from victims.models.convnet import ConvNet
from victims.models.lenet import LeNet
from victims.models.resnet18 import ResNet18
from victims.modules import build
from victims.observation import Knowledge, Observation
from victims.victim import Victim

MEAN = (0.5, 0.5, 0.5)


def observe(make, label, seed, classes=10, size=16):
    net = build(make, image_shape=(3, size, size), num_classes=classes, seed=seed)
    victim = Victim(net, mean=MEAN, std=MEAN)
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))
    update = fed_sgd(victim, image, torch.tensor([label]))
    return Observation("t", victim, update, 1, (3, size, size), classes, Knowledge())


@pytest.mark.parametrize("make", [LeNet, ConvNet, ResNet18])
@pytest.mark.parametrize("label", range(10))
def test_every_class_is_found_and_by_the_sign_rule_too(make, label):
    observation = observe(make, label, seed=label + 1)
    assert idlg(observation).tolist() == [label]
    negative = (observation.update[list(observation.update)[-2]].sum(1) < 0).nonzero().flatten()
    assert negative.tolist() == [label]


@pytest.mark.parametrize("label", [0, 1])
def test_two_classes(label):
    assert idlg(observe(LeNet, label, seed=0, classes=2)).tolist() == [label]


def test_it_is_the_only_label_that_explains_the_update():
    """By brute force: the classifier's gradient is that of one label only, whatever the features."""
    observation = observe(LeNet, 7, seed=3)
    name = list(observation.update)[-2]
    misfit = [
        (observe(LeNet, label, seed=3).update[name] - observation.update[name]).norm().item() for label in range(10)
    ]
    assert misfit[7] == 0
    assert sorted(misfit)[1] > 1e-3
    assert idlg(observation).tolist() == [7]


class Negative(nn.Module):
    """All features negative."""

    def __init__(self, *, image_shape, num_classes):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.classifier = nn.Linear(4 * 14 * 14, num_classes)

    def forward(self, x):
        return self.classifier(-self.body(x).sigmoid().flatten(1))


def test_features_that_are_negative_would_mislead_it_and_are_refused():
    observation = observe(Negative, 7, seed=0)
    rows = classifier(observation).dW.sum(1)
    assert rows.argmin() != 7
    assert rows.argmax() == 7
    with pytest.raises(InputError, match="never negative"):
        idlg(observation)


def test_one_logit_for_two_classes_is_refused():
    observation = observe(LeNet, 1, seed=0, classes=1)
    with pytest.raises(InputError, match="one logit") as refusal:
        idlg(replace(observation, num_classes=2))
    assert "\n" not in str(refusal.value)
