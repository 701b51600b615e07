"""The mode of every layer: what the model's owner froze stays frozen, and `as_is` changes nothing."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gibench
from attacks.engine.gradients import victim_gradients
from victims import by_name
from victims.client import calibrate, known_statistics
from victims.data.photos import Photos
from victims.errors import InputError
from victims.modules import build
from victims.victim import Victim, gradient

SHAPE = {"image_shape": (3, 8, 8), "num_classes": 5}
LABELS = torch.tensor([3, 1, 3, 0])


class Net(nn.Module):
    """Two batch norms away from (0, 1)."""

    def __init__(self, *, image_shape, num_classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(24, num_classes)
        for norm in (self.stem[1], self.body[1]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.head(self.body(self.stem(x)))


class Finetuned(Net):
    """Keeps the batch norm of its stem frozen in its own `train`."""

    def train(self, mode=True):
        super().train(mode)
        self.stem.eval()
        return self


def half_frozen():
    net = build(Net, **SHAPE, seed=0).double()
    net.stem.eval()
    return net


@pytest.fixture
def images():
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def backward(model, images):
    """What the owner's own training step computes, in the mode in which the model is."""
    plain = copy.deepcopy(model)
    cross_entropy(plain(images), LABELS).backward()
    return {name: p.grad for name, p in plain.named_parameters()}


def all_close(found, expected):
    assert list(found) == list(expected)
    for name, g in expected.items():
        torch.testing.assert_close(found[name], g, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("make", "training"), [(half_frozen, None), (lambda: finetuned(), True)])
def test_the_gradient_is_that_of_the_owners_training_step(make, training, images):
    model = make()
    expected = backward(model, images)
    victim = Victim(model, mean=(0.0,) * 3, std=(1.0,) * 3, training=training)
    all_close(gradient(victim, images, LABELS), expected)
    stacked = victim_gradients(victim, images[None], LABELS[None])
    all_close({name: g[0] for name, g in stacked.items()}, expected)


def finetuned():
    return build(Finetuned, **SHAPE, seed=0).double().train()


def test_the_three_modes_differ_for_a_model_that_is_half_frozen(images):
    model = half_frozen()
    sent = [
        gibench.capture(model, images, LABELS, mode=mode).update["head.bias"] for mode in ("eval", "train", "as_is")
    ]
    assert all((one - other).abs().max() > 1e-4 for one, other in zip(sent, sent[1:] + sent[:1], strict=True))
    all_close({"head.bias": sent[2]}, {"head.bias": backward(model, images)["head.bias"]})


def test_only_statistics_that_move_are_recovered(images):
    victim = Victim(half_frozen(), mean=(0.0,) * 3, std=(1.0,) * 3, training=None)
    assert set(victim.running) == {"stem.1", "body.1"}
    recovered, exact = (known_statistics(victim, images, level) for level in ("recovered", "exact"))
    assert set(recovered) == {"body.1"}
    torch.testing.assert_close(recovered["body.1"], exact["body.1"], rtol=1e-6, atol=1e-9)
    with pytest.raises(InputError, match="no running statistics are known to move"):
        known_statistics(Victim(half_frozen(), mean=(0.0,) * 3, std=(1.0,) * 3), images, "recovered")


def test_the_trial_and_calibration_keep_the_mode_of_every_layer():
    made = by_name.find("net", lambda _: lambda **_: half_frozen().float(), training=None)(**SHAPE)
    data = Photos(split="tune", size=8)
    calibrate(made, data, data.preprocessing, batches=1, size=4)
    assert (made.training, made.stem[1].training, made.body[1].training) == (True, False, True)


def test_a_layer_that_draws_random_numbers_is_refused_in_its_mode():
    def make(**_):
        return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(192, 5))

    with pytest.raises(InputError, match=r"as_is mode draws random numbers.*use --victim-mode eval"):
        by_name.find("net", lambda _: make, training=None)(**SHAPE)
