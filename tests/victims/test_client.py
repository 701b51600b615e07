"""FedSGD against closed forms and per-sample gradients."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from victims.client import fed_sgd
from victims.models.convnet import ConvNet
from victims.models.lenet import LeNet
from victims.victim import Victim, build

MEAN, STD = (0.5, 0.4, 0.3), (0.3, 0.2, 0.25)
LABELS = torch.tensor([2, 0, 2, 4])


@pytest.fixture
def pixels():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_hand(pixels):
    """(x - mean) / std, written out by channel."""
    channels = [(pixels[:, c] - MEAN[c]) / STD[c] for c in range(3)]
    return torch.stack(channels, dim=1)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", [LeNet, ConvNet])
def test_fed_sgd_is_the_mean_of_per_sample_gradients(make, training, pixels):
    model = build(make, image_shape=(3, 16, 16), num_classes=5, seed=0).double()
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for image, label in zip(by_hand(pixels), LABELS, strict=True):
        model.zero_grad()
        cross_entropy(model(image[None]), label[None]).backward()
        for name, parameter in model.named_parameters():
            expected[name] += parameter.grad / len(LABELS)
    update = fed_sgd(Victim(model, mean=MEAN, std=STD, training=training), pixels, LABELS)
    assert list(update) == list(expected)
    for name in expected:
        torch.testing.assert_close(update[name], expected[name])


def test_fed_sgd_of_a_linear_model_is_the_closed_form(pixels):
    """Softmax regression: dL/db = mean(p - y), dL/dW = mean((p - y) x^T)."""
    model = build(lambda **_: nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), image_shape=(), num_classes=5, seed=0)
    victim = Victim(model.double(), mean=MEAN, std=STD)
    x = by_hand(pixels).flatten(1)
    logits = x @ victim.parameters["1.weight"].T + victim.parameters["1.bias"]
    error = (logits.exp() / logits.exp().sum(1, keepdim=True) - one_hot(LABELS, 5)) / 4
    update = fed_sgd(victim, pixels, LABELS)
    torch.testing.assert_close(update["1.bias"], error.sum(0))
    torch.testing.assert_close(update["1.weight"], error.T @ x)


def test_the_update_carries_no_graph_back_to_the_images(pixels):
    victim = Victim(build(LeNet, image_shape=(3, 16, 16), num_classes=5, seed=0).double(), mean=MEAN, std=STD)
    update = fed_sgd(victim, pixels.requires_grad_(), LABELS)
    assert all(g.grad_fn is None and not g.requires_grad for g in update.values())


def test_the_order_of_the_batch_does_not_matter(pixels):
    victim = Victim(build(LeNet, image_shape=(3, 16, 16), num_classes=5, seed=0).double(), mean=MEAN, std=STD)
    order = torch.tensor([2, 3, 1, 0])
    one, other = fed_sgd(victim, pixels, LABELS), fed_sgd(victim, pixels[order], LABELS[order])
    for name in one:
        torch.testing.assert_close(one[name], other[name])
