"""The label rule against the label that the update was made with, on random nets."""

import pytest
import torch
from torch import nn

from attacks.labels.idlg import idlg_label
from victims.client import fed_sgd
from victims.errors import InputError
from victims.models.convnet import ConvNet
from victims.models.lenet import LeNet
from victims.models.resnet18 import ResNet18
from victims.victim import Victim, build

MEAN = (0.5, 0.5, 0.5)


def update_of(make, label, seed, classes=10, size=16):
    net = build(make, image_shape=(3, size, size), num_classes=classes, seed=seed)
    victim = Victim(net, mean=MEAN, std=MEAN)
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return fed_sgd(victim, image, torch.tensor([label])), victim


@pytest.mark.parametrize("make", [LeNet, ConvNet, ResNet18])
@pytest.mark.parametrize("label", range(10))
def test_every_class_is_found_and_by_the_sign_rule_too(make, label):
    update, victim = update_of(make, label, seed=label + 1)
    assert idlg_label(update, victim.classifier()).tolist() == [label]
    negative = (update[victim.classifier()].sum(1) < 0).nonzero().flatten()
    assert negative.tolist() == [label]


@pytest.mark.parametrize("label", [0, 1])
def test_two_classes(label):
    update, victim = update_of(LeNet, label, seed=0, classes=2)
    assert idlg_label(update, victim.classifier()).tolist() == [label]


def test_it_is_the_only_label_that_explains_the_update():
    """By brute force: the classifier's gradient is that of one label only, whatever the features."""
    update, victim = update_of(LeNet, 7, seed=3)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    name = victim.classifier()
    misfit = [(fed_sgd(victim, image, torch.tensor([label]))[name] - update[name]).norm().item() for label in range(10)]
    assert misfit[7] == 0
    assert sorted(misfit)[1] > 1e-3
    assert idlg_label(update, name).tolist() == [7]


def test_features_that_sum_to_less_than_zero_mislead_it():
    """Where the rule ends: all features negative turn every sign around."""

    class Negative(nn.Module):
        def __init__(self, *, image_shape, num_classes):
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)
            self.classifier = nn.Linear(4 * 14 * 14, num_classes)

        def forward(self, x):
            return self.classifier(-self.body(x).sigmoid().flatten(1))

    update, victim = update_of(Negative, 7, seed=0)
    assert idlg_label(update, victim.classifier()).item() != 7
    flipped = {name: -g for name, g in update.items()}
    assert idlg_label(flipped, victim.classifier()).item() == 7


def test_one_logit_for_two_classes_is_refused():
    update, victim = update_of(LeNet, 1, seed=0, classes=1)
    with pytest.raises(InputError, match="one logit") as refusal:
        idlg_label(update, victim.classifier())
    assert "\n" not in str(refusal.value)
