"""Models in which a forward pass leaves tensors with a history, which torch cannot copy."""

import warnings
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gibench
from attacks.engine.gradients import victim_gradients
from victims import by_name
from victims.modules import build
from victims.victim import Victim, copied, gradient

SHAPE = {"image_shape": (3, 8, 8), "num_classes": 5}
LABELS = torch.tensor([3, 1, 3, 0])


class Net(nn.Module):
    def __init__(self, *, image_shape, num_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Sigmoid(), nn.Flatten())
        self.head = nn.Linear(64, num_classes)

    def forward(self, x):
        return self.head(self.body(x))


class Keeps(Net):
    """As for Grad-CAM."""

    def forward(self, x):
        self.features = self.body(x)
        return self.head(self.features)


class KeepsInside(Net):
    """As attention maps are kept, in a list of a child."""

    def forward(self, x):
        features = self.body(x)
        self.body.kept = {"maps": [features, (features.mean(),)]}
        return self.head(features)


class WeightNorm(Net):
    def __init__(self, **options):
        super().__init__(**options)
        with warnings.catch_warnings(action="ignore"):
            self.head = nn.utils.weight_norm(self.head)


every_model = pytest.mark.parametrize("make", [Keeps, KeepsInside, WeightNorm])


@pytest.fixture
def images():
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@every_model
def test_the_gradient_is_the_models_own_on_every_path_and_after_every_copy(make, images):
    model = by_name.find("net", lambda _: make)(**SHAPE).double()
    images = images.double()
    cross_entropy(model(images), LABELS).backward()
    victim = Victim(model, mean=(0.0,) * 3, std=(1.0,) * 3)
    for _ in range(2):
        plain = gradient(victim, images, LABELS)
        fast = victim_gradients(victim, images[None], LABELS[None])
        for name, p in model.named_parameters():
            torch.testing.assert_close(plain[name], p.grad)
            torch.testing.assert_close(fast[name][0], p.grad)
        victim = deepcopy(victim)


@every_model
def test_captured_and_attacked(make, images):
    model = build(make, **SHAPE, seed=0)
    model(images)
    observation = gibench.capture(model, images, LABELS, defense="noise:0.001")
    for _ in range(2):
        assert gibench.attack("ig", observation, steps=3, restarts=2).cost.isfinite().all()


def test_a_copy_holds_the_values_and_shares_no_parameter(images):
    model = build(Keeps, **SHAPE, seed=0)
    model(images)
    made = copied(model)
    assert torch.equal(made.features, model.features)
    assert not made.features.requires_grad
    with torch.no_grad():
        made.head.weight.zero_()
    assert model.head.weight.abs().max() > 0
