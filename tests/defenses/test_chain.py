"""Defenses one after another, on the client and in the attacker's surrogate."""

import pytest
import torch
from torch import nn

from defenses.base import Chain, Defense
from defenses.sparsification import Sparsification
from victims.client import fed_sgd


class Affine(Defense):
    """g -> scale g + shift at each of the three places; any order but the right one gives another result."""

    def __init__(self, scale, shift):
        self.scale, self.shift = scale, shift

    def model(self, model, image_shape):
        return nn.Sequential(model, nn.Identity()) if self.scale > 1 else nn.Sequential(nn.Identity(), model)

    def gradient_fn(self, gradient_fn, victim, generator):
        return lambda *given: self(gradient_fn(*given), generator)

    def __call__(self, update, generator):
        return {name: self.scale * g + self.shift for name, g in update.items()}

    @staticmethod
    def estimate(received, victim):
        return lambda gradient: {name: 2 * g + received[name] for name, g in gradient.items()}


class Thrice(Affine):
    """With an estimate that does not commute with that of the other."""

    @staticmethod
    def estimate(received, victim):
        return lambda gradient: {name: 3 * g - received[name] for name, g in gradient.items()}


FIRST, SECOND = Affine(2, 1), Affine(-3, 5)
G = {"w": torch.tensor([[1.0, -2.0]])}


def test_updates_pass_the_first_defense_first():
    sent = Chain([FIRST, SECOND])(G, torch.Generator())
    assert torch.equal(sent["w"], -3 * (2 * G["w"] + 1) + 5)


def test_gradients_pass_the_first_defense_first(capture):
    victim = capture().observation.victim
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([1, 4])
    plain = fed_sgd(victim, images, labels)

    def gradient_fn(theta, x, y):
        return plain

    sent = fed_sgd(victim, images, labels, Chain([FIRST, SECOND]).gradient_fn(gradient_fn, victim, torch.Generator()))
    assert all(torch.equal(sent[name], -3 * (2 * g + 1) + 5) for name, g in plain.items())


def test_models_are_wrapped_by_the_first_defense_first():
    inner = nn.Linear(1, 1)
    outer = Chain([FIRST, SECOND]).model(inner, (1, 1, 1))
    assert isinstance(outer[0], nn.Identity)
    assert outer[1][0] is inner


def test_the_surrogates_of_the_parts_are_applied_in_order():
    received = {"w": torch.tensor([[10.0, 20.0]])}
    seen = Chain([FIRST, Thrice(1, 0)]).surrogate()(received, None)(G)
    assert torch.equal(seen["w"], 3 * (2 * G["w"] + received["w"]) - received["w"])


def test_a_part_without_a_surrogate_of_the_name_keeps_its_own():
    received = {"w": torch.tensor([[3.0, 0.0, 0.0, 4.0]])}
    dummy = {"w": torch.tensor([[7.0, 9.0, 8.0, 1.0]])}
    chain = Chain([Affine(2, 1), Sparsification(0.5)])
    seen = [chain.surrogate(name)(received, None)(dummy)["w"].tolist() for name in ("", "parameter")]
    assert seen == [[[17, 0, 0, 6]], [[17, 18, 0, 0]]]  # of 2 dummy + received: [17, 18, 16, 6]


def test_a_chain_alone_cannot_be_estimated():
    with pytest.raises(TypeError, match="surrogate"):
        Chain.estimate(G, None)
