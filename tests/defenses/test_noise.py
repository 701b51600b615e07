"""Noise against the distributions of scipy, and the attacker's surrogate of it."""

import math

import pytest
import torch
from scipy import stats

from benchmark.registry import open_defense
from defenses.noise import Noise
from victims.errors import InputError

STD = 0.3
# The same two by their textbook parameters: a Laplacian's variance is 2 scale^2.
DISTRIBUTIONS = {"gaussian": stats.norm(scale=STD), "laplacian": stats.laplace(scale=STD / 2**0.5)}
LARGE = {"w": torch.full((100, 300), 5.0, dtype=torch.float64), "b": torch.zeros(7)}


def defended(update, *parameters, seed=0):
    return Noise(*parameters)(update, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_the_noise_has_its_distribution(kind):
    added = (defended(LARGE, STD, kind)["w"] - LARGE["w"]).flatten().numpy()
    other = next(d for name, d in DISTRIBUTIONS.items() if name != kind)
    assert stats.kstest(added, DISTRIBUTIONS[kind].cdf).pvalue > 0.01
    assert stats.kstest(added, other.cdf).pvalue < 1e-6  # the test can tell them apart
    assert added.std() == pytest.approx(STD, rel=0.03)


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_every_entry_has_its_own_noise(kind):
    added = defended(LARGE, STD, kind)["w"] - LARGE["w"]
    assert abs(stats.pearsonr(added.flatten()[:-1], added.flatten()[1:]).statistic) < 0.03
    assert defended(LARGE, STD, kind)["b"].unique().numel() == 7


def test_gaussian_is_the_default():
    assert torch.equal(defended(LARGE, STD)["w"], defended(LARGE, STD, "gaussian")["w"])


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_the_result_depends_only_on_the_generator(kind):
    torch.manual_seed(1)
    first = defended(LARGE, STD, kind)
    torch.manual_seed(2)
    assert all(torch.equal(first[name], g) for name, g in defended(LARGE, STD, kind).items())
    assert not torch.equal(first["w"], defended(LARGE, STD, kind, seed=1)["w"])


def test_shapes_and_types_stay_and_the_clients_update_is_not_changed():
    update = {"a": torch.ones((), dtype=torch.float64), "b": torch.ones(2, 3)}
    sent = defended(update, STD)
    assert [(g.shape, g.dtype) for g in sent.values()] == [(g.shape, g.dtype) for g in update.values()]
    assert all((g == 1).all() for g in update.values())


def test_no_deviation_is_no_noise():
    assert torch.equal(defended(LARGE, 0)["w"], LARGE["w"])


@pytest.mark.parametrize("std", [-0.1, math.nan, math.inf])
def test_an_invalid_deviation_is_refused_in_one_line(std):
    with pytest.raises(InputError, match=str(std)) as error:
        Noise(std)
    assert "\n" not in str(error.value)


def test_the_command_line_takes_both_forms():
    assert vars(open_defense("noise:0.01")) == {"std": 0.01, "kind": "gaussian"}
    assert vars(open_defense("noise:0.01:laplacian")) == {"std": 0.01, "kind": "laplacian"}
    with pytest.raises(InputError, match="laplacian"):
        open_defense("noise:0.01:uniform")


def test_the_surrogate_is_the_mean_over_the_noise():
    dummy = {"w": torch.tensor([[0.5, -2.0, 0.0]])}
    many = {"w": dummy["w"].expand(40_000, 3)}
    mean = defended(many, STD, "laplacian")["w"].mean(0)
    seen = Noise.estimate(many, None)(dummy)["w"][0]
    assert torch.allclose(seen, mean, atol=5 * STD / 200)
