"""QSGD against its definition in exact arithmetic, and the attacker's surrogate of it."""

import math

import numpy as np
import pytest
import torch

from benchmark.registry import open_defense
from defenses.quantization import Quantization
from victims.errors import InputError

G = {"w": torch.tensor([[0.3, -1.2], [0.0, 2.0]]), "b": torch.tensor(-0.7), "none": torch.zeros(3)}
MANY = 20_000


def quantized(update, levels, seed=0):
    return Quantization(levels)(update, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def draws():
    """MANY updates of the same w at 3 levels, (MANY, 4), and the step of their grid."""
    generator, defense = torch.Generator().manual_seed(0), Quantization(3)
    sent = [defense({"w": G["w"]}, generator)["w"].flatten() for _ in range(MANY)]
    return torch.stack(sent).double().numpy(), math.sqrt(0.3**2 + 1.2**2 + 2**2) / 3


def test_every_entry_is_one_of_its_two_neighbors_on_the_grid(draws):
    sent, step = draws
    for values, g in zip(sent.T, [0.3, -1.2, 0.0, 2.0], strict=True):
        below = math.floor(abs(g) / step)
        neighbors = {below, below + 1} if g else {0}
        found = np.unique(np.round(values / step, 4))
        assert set(np.abs(found)) == neighbors
        assert (found * np.sign(g) >= 0).all()


def test_the_mean_over_the_rounding_is_the_gradient(draws):
    sent, step = draws
    for values, g in zip(sent.T, [0.3, -1.2, 0.0, 2.0], strict=True):
        up = abs(g) / step % 1
        variance = up * (1 - up) * step**2
        assert abs(values.mean() - g) <= 5 * math.sqrt(variance / MANY)
        assert values.var() == pytest.approx(variance, rel=0.05)


def test_one_level_keeps_the_norm_or_nothing():
    g = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    sent = quantized({"w": g}, 1)["w"]
    norm = g.double().norm()
    assert sent.count_nonzero() > 0
    assert torch.allclose(sent[sent != 0].abs().double(), norm, rtol=1e-5)


def test_no_entry_exceeds_the_last_level():
    """An entry that equals the norm of its tensor lies on the grid and is not rounded up."""
    for seed in range(50):
        sent = quantized({"b": torch.tensor(-0.7)}, 4, seed)["b"]
        assert float(sent) == pytest.approx(-0.7, rel=1e-6)


def test_shapes_stay_and_the_clients_update_is_not_changed():
    before = {name: g.clone() for name, g in G.items()}
    sent = quantized(G, 2)
    assert {name: g.shape for name, g in sent.items()} == {name: g.shape for name, g in G.items()}
    assert all(torch.equal(G[name], g) for name, g in before.items())
    assert not sent["none"].any()


def test_the_result_depends_only_on_the_generator():
    large = {"w": torch.linspace(-1, 1, 500, dtype=torch.float64)}
    torch.manual_seed(1)
    first = quantized(large, 3)["w"]
    torch.manual_seed(2)
    assert torch.equal(first, quantized(large, 3)["w"])
    assert not torch.equal(first, quantized(large, 3, seed=1)["w"])
    assert first.dtype == torch.float64


@pytest.mark.parametrize("levels", [0, -3])
def test_invalid_levels_are_refused_in_one_line(levels):
    with pytest.raises(InputError, match=str(levels)) as error:
        Quantization(levels)
    assert "\n" not in str(error.value)


def test_the_command_line_takes_a_whole_number():
    assert vars(open_defense("quantization:4")) == {"levels": 4}
    with pytest.raises(InputError, match="int"):
        open_defense("quantization:1.5")


# The attacker's surrogate.


def test_the_surrogate_is_the_mean_over_the_rounding(draws):
    """Far from the nearest level of each entry, which deterministic rounding would give."""
    sent, step = draws
    dummy = {"w": G["w"][None]}
    seen = Quantization.estimate({"w": torch.from_numpy(sent[:1]).float()}, None)(dummy)["w"].flatten().numpy()
    assert np.abs(seen - sent.mean(0)).max() < 5 * step / 2 / math.sqrt(MANY)
    assert np.abs(seen - np.rint(seen / step) * step).max() > 0.3 * step


def test_the_surrogate_is_differentiable_and_takes_zeros():
    dummy = torch.zeros(1, 3, requires_grad=True)
    seen = Quantization.estimate({"w": torch.zeros(1, 3)}, None)({"w": dummy})["w"]
    assert torch.autograd.grad(seen.sum(), dummy)[0].tolist() == [[1, 1, 1]]
