"""ALR where its one estimate, the mean of p, is exact; and the equation that it rests on."""

import pytest
import torch

from attacks.labels.alr import alr
from attacks.labels.base import classifier
from tests.attacks.labels.conftest import N, Small, constant
from victims.modules import build

MULTISETS = [[2], [0, 0, 0, 0], [1, 1, 4, 6, 6, 6], [5] * 20 + [0] * 10 + [1, 2, 3], list(range(N)) * 3]


@pytest.mark.parametrize("labels", MULTISETS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_it_is_exact_where_features_do_not_depend_on_the_image(labels, seed, observe):
    assert alr(observe(labels, constant(build(Small, seed=seed)))).tolist() == sorted(labels)


def test_the_estimate_of_p_makes_it_exact(observe):
    """With p = 1/N, without a look at the model, the same batch is wrong."""
    labels = [5] * 20 + [0] * 10 + [1, 2, 3]
    observation = observe(labels, constant(build(Small, seed=0)))
    guess = (len(labels) * (1 / N - classifier(observation).db)).round().clamp(0)
    assert guess.tolist() != torch.bincount(torch.tensor(labels), minlength=N).tolist()


@pytest.mark.parametrize("labels", MULTISETS, ids=str)
def test_with_the_true_mean_of_p_equation_11_is_exact(labels, observe):
    images = torch.rand(len(labels), 1, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    observation = observe(labels, images=images)
    p = observation.victim.model(images).softmax(-1).sum(0)
    counts = p - len(labels) * classifier(observation).db
    torch.testing.assert_close(counts, torch.bincount(torch.tensor(labels), minlength=N).double())
