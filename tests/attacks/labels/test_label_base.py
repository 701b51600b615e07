"""Whole counts, lowest scores, and the features of dummy images."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attacks.labels.base import classifier, dummy_features, lowest, nearest_counts
from tests.attacks.labels.conftest import Normed
from victims.modules import build


@given(st.lists(st.integers(-9, 15).map(lambda n: n / 4 + 0.01 * n**2), min_size=3, max_size=3), st.integers(1, 5))
def test_counts_are_the_nearest_of_all_by_brute_force(estimates, total):
    found = torch.bincount(nearest_counts(torch.tensor(estimates, dtype=torch.float64), total), minlength=3).tolist()
    every = [n for n in product(range(total + 1), repeat=3) if sum(n) == total]
    misfit = {n: sum((a - b) ** 2 for a, b in zip(n, estimates, strict=True)) for n in every}
    assert misfit[tuple(found)] == pytest.approx(min(misfit.values()))


def test_counts_are_the_largest_remainders_where_the_estimates_are_shares():
    estimates = torch.tensor([0.45, 3.3, 2.75, 0.1, 1.4], dtype=torch.float64)  # floors 0, 3, 2, 0, 1: two are left
    assert torch.bincount(nearest_counts(estimates, 8), minlength=5).tolist() == [1, 3, 3, 0, 1]


def test_equal_estimates_give_the_image_to_the_first_class():
    assert nearest_counts(torch.tensor([0.5, 0.5, 0.5, 0.5]), 2).tolist() == [0, 1]


def test_lowest_scores_first_and_then_again():
    scores = torch.tensor([0.3, -2.0, 0.0])
    assert lowest(scores, 2).tolist() == [1, 2]
    assert lowest(scores, 5).tolist() == [1, 2, 0, 1, 2]


def by_hand(victim, images, over):
    """The features of `Normed`, with batch norm over the given mean and variance."""
    conv, _, _, _, _ = victim.model
    x = conv(images)
    mean, variance = over(x)
    return ((x - mean) / (variance + 1e-5).sqrt()).relu().flatten(1)


@pytest.mark.parametrize("training", [False, True])
def test_dummy_features_come_from_normal_images_in_the_victims_mode(training, observe):
    observation = observe(net=build(Normed, seed=0), training=training)
    images = torch.randn(8, 1, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    own = lambda x: (x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0))  # noqa: E731
    expected = by_hand(observation.victim, images, own if training else lambda _: (0, torch.tensor(1.0)))
    torch.testing.assert_close(dummy_features(observation, 8), expected)


def test_dummy_features_do_not_change_the_victim(observe):
    observation = observe(net=build(Normed, seed=0))
    victim = observation.victim
    before = {name: tensor.clone() for name, tensor in victim.model.state_dict().items()}
    state = torch.get_rng_state()
    features = dummy_features(observation)
    assert torch.equal(features, dummy_features(observation))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in victim.model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in victim.model.modules())


def test_entries_that_are_not_finite_become_zero(observe):
    observation = observe()
    weight = observation.update["3.weight"]
    weight[0, 0], weight[1, 0], observation.update["3.bias"][2] = torch.nan, torch.inf, -torch.inf
    layer = classifier(observation)
    assert (layer.dW[0, 0], layer.dW[1, 0], layer.db[2]) == (0, 0, 0)
    assert torch.equal(layer.dW[2:], weight[2:])
