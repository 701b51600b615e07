"""The first linear layer: found in a forward pass, its gradient, and the labels that it shows."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from attacks.closed_form.first_linear import first_linear, labels_of
from benchmark.tasks.capture import Client, capture
from victims.errors import InputError
from victims.models.convnet import ConvNet
from victims.models.fcn3 import FCN3
from victims.modules import build
from victims.preprocessing import Preprocessing
from victims.victim import Victim

SHAPE = (3, 4, 4)
N = 48


class Normalizing(nn.Module):
    """Normalizes by itself, and has a parameter that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(2.0))
        self.out, self.first = nn.Linear(20, 5), nn.Linear(N, 20)

    def forward(self, x):
        std = torch.tensor([0.5, 0.25, 0.125]).reshape(3, 1, 1).to(x)
        return self.out(self.first(((x - 0.5) / std).reshape(len(x), -1)).relu_()) / self.temperature


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(N, N), nn.Linear(N, 5)

    def forward(self, x):
        return self.out(self.fc(self.fc(x.flatten(1)).relu()))


class Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows, self.out = nn.Linear(4, 9), nn.Linear(9, 5)

    def forward(self, x):
        return self.out(self.rows(x).relu().mean((1, 2)))


class Squared(nn.Sequential):
    def forward(self, x):
        return super().forward(x**2)


def victim_of(model, **options):
    return Victim(model, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), **options)


def fcn(*between):
    torch.manual_seed(0)
    return nn.Sequential(*between, nn.Flatten(), nn.Linear(N, 20), nn.ReLU(), nn.Linear(20, 5))


def observed(victim, images, labels):
    return capture(victim, images, labels, Client(), task="t", num_classes=5)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, *SHAPE, generator=generator), torch.tensor([4, 1, 1])


@pytest.mark.parametrize("make", [fcn, Normalizing], ids=["plain", "normalizes by itself"])
@pytest.mark.parametrize("own", [None, Preprocessing((0.0,) * 3, (1 / 255,) * 3)], ids=["normalized", "bytes"])
def test_gradient_and_images_are_those_of_the_layer(make, own, batch):
    images, labels = batch
    victim = victim_of(make().double(), preprocessing=own)
    observation = observed(victim, images.double(), labels)
    layer = first_linear(victim, SHAPE, "x")
    x = victim.enter(victim.normalize(images.double()))
    if make is Normalizing:
        x = (x - 0.5) / torch.tensor([0.5, 0.25, 0.125]).reshape(3, 1, 1)
    x = x.flatten(1)
    named = dict(victim.model.named_parameters())
    W, c = named[f"{layer.name}.weight"], named[f"{layer.name}.bias"]
    z = (x @ W.T + c).requires_grad_()
    out = victim.model.out if make is Normalizing else victim.model[3]
    logits = out(z.relu()) / (2 if make is Normalizing else 1)
    (dz,) = torch.autograd.grad(cross_entropy(logits, labels), z)
    dW, dc = layer.gradients(observation)
    torch.testing.assert_close(dW, dz.T @ x)
    torch.testing.assert_close(dc, dz.sum(0))
    normalized = victim.normalize(images.double())
    torch.testing.assert_close(layer.images(x, observation), normalized)
    assert torch.equal(labels_of(layer, observation, normalized, 3 * dz), labels)


def test_the_only_layer_may_be_the_classifier(batch):
    images, labels = batch
    torch.manual_seed(0)
    victim = victim_of(nn.Sequential(nn.Flatten(), nn.Linear(N, 5)))
    observation = observed(victim, images, labels)
    layer = first_linear(victim, SHAPE, "x")
    normalized = victim.normalize(images)
    p = victim.logits(victim.parameters, normalized).softmax(1)
    dz = (p - torch.eye(5)[labels]).double()
    assert torch.equal(labels_of(layer, observation, normalized, dz), labels)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (ConvNet(image_shape=SHAPE, num_classes=5), "layer body.0 is a Conv2d"),
        (FCN3(image_shape=SHAPE, num_classes=5), "layer fc1 has no bias"),
        (Twice(), "layer fc is passed more than once"),
        (Patches(), "layer rows does not see each image as one vector"),
        (Squared(*fcn()), "layer 1 sees more than a shift"),
        (fcn(nn.AvgPool2d(2), nn.Upsample(scale_factor=2)), "layer 3 sees more than a shift"),
        (fcn(nn.BatchNorm2d(3, affine=False)).train(), "layer 2 sees more than a shift"),
        (fcn(nn.BatchNorm2d(3)), "layer 0 is a BatchNorm"),
    ],
    ids=["convolution", "no bias", "twice", "rows", "squared", "blurred", "normalized by the batch", "batch norm"],
)
def test_other_victims_are_refused_with_the_name_of_their_first_layer(model, said):
    with pytest.raises(InputError, match=said) as refusal:
        first_linear(victim_of(model, training=None), SHAPE, "spear")
    assert "\n" not in str(refusal.value)
    assert "--victim fcn:400" in str(refusal.value)


def test_a_frozen_layer_is_refused():
    model = build(fcn, seed=0)
    model[1].bias.requires_grad_(False)
    with pytest.raises(InputError, match="frozen"):
        first_linear(victim_of(model), SHAPE, "spear")


def test_a_layer_before_batch_norm_in_train_mode_is_the_first_linear_one():
    """Which a single image would not pass."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    victim = Victim(net, mean=(0.5,) * 3, std=(0.25,) * 3, training=True)
    assert first_linear(victim, (3, 8, 8), "it").name == "1"
