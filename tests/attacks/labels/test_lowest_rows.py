"""ZLR and GGL's row sums: the sign argument, and where the two differ."""

import pytest
import torch

from attacks.labels.row_sums import row_sums
from attacks.labels.zlr import zlr
from tests.attacks.labels.conftest import N, Small
from victims.models.convnet import ConvNet
from victims.modules import build
from victims.victim import Victim


@pytest.mark.parametrize("method", [zlr, row_sums])
@pytest.mark.parametrize("seed", range(4))
def test_distinct_labels_are_found(method, seed, observe):
    labels = torch.randperm(N, generator=torch.Generator().manual_seed(seed))[: 2 + seed].sort().values.tolist()
    assert method(observe(labels, build(Small, features=40, seed=seed), seed=seed)).tolist() == labels


def test_only_classes_of_the_batch_have_negative_entries(observe):
    """With features that are never negative: entry (i, f) is the mean over images of (p_i - [i is the label]) a_f."""
    observation = observe([2, 2, 4], build(Small, features=40, seed=0))
    least = observation.update["3.weight"].amin(1)
    assert (least < 0).nonzero().flatten().tolist() == [2, 4]


@pytest.mark.parametrize("method", [zlr, row_sums])
def test_repeated_labels_are_found_once(method, observe):
    labels = [2, 2, 2, 5]
    found = method(observe(labels, build(Small, features=40, seed=0))).tolist()
    assert {2, 5} < set(found)
    assert len(set(found)) == 4


@pytest.mark.parametrize("method", [zlr, row_sums])
def test_with_more_images_than_classes_every_class_is_taken_and_the_lowest_again(method, observe):
    labels = [1] * 6 + [3] * 4
    found = torch.bincount(method(observe(labels, build(Small, features=40, seed=0))), minlength=N)
    assert found.tolist().count(2) == 3
    assert found[[1, 3]].tolist() == [2, 2]
    assert found.min() == 1


def test_one_takes_the_minimum_and_the_other_the_sum(observe):
    observation = observe([0, 1], build(Small, features=3, seed=0))
    rows = torch.full((N, 3), 0.5)
    rows[1], rows[4], rows[5] = torch.tensor([-9.0, 9, 9]), torch.tensor([-2.0, -2, -2]), torch.tensor([-3.0, 0, 0])
    observation.update["3.weight"] = rows.double()
    assert zlr(observation).tolist() == [1, 5]
    assert row_sums(observation).tolist() == [4, 5]


def test_sums_tolerate_more_noise_than_minima(observe):
    """Why there are two methods: over many features noise makes a minimum of its own, but averages out in a sum."""
    hits = {zlr: 0, row_sums: 0}
    for seed in range(10):
        labels = [seed % N, (seed + 3) % N]
        net = build(ConvNet, image_shape=(1, 8, 8), num_classes=N, seed=seed)
        images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        observation = observe(labels, net, images=images)
        assert isinstance(observation.victim, Victim)
        W = observation.update["classifier.weight"]
        W += W.abs().mean() * 20 * torch.randn(W.shape, generator=torch.Generator().manual_seed(seed)).double()
        for method in hits:
            hits[method] += method(observation).tolist() == sorted(labels)
    assert hits[row_sums] > hits[zlr]
