"""Gradient sparsification against a sort in numpy, and the attacker's surrogate of it."""

import inspect
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from defenses.base import Defense
from defenses.sparsification import Sparsification, by_rate
from victims.errors import InputError

VICTIM = None  # zeros are looked for in what was received alone
RATES = ["0", "0.29", "0.5", "0.9", "0.99"]  # decimal, so that a count can be exact
SHAPES = [(), (1,), (7,), (100,), (4, 5, 5), (3, 2, 5, 5)]


@pytest.fixture
def update():
    """One random tensor per shape; none of its entries is zero."""
    generator = torch.Generator().manual_seed(0)
    return {str(shape): torch.randn(shape, generator=generator) for shape in SHAPES}


def sparsify(update, rate):
    return Sparsification(float(rate))(update, torch.Generator())


def zeros(size, rate):
    """The whole number of entries that make up `rate` of `size`, by exact arithmetic."""
    return math.floor(Fraction(rate) * size)


# On the client.


@pytest.mark.parametrize("rate", RATES)
def test_every_tensor_has_its_exact_number_of_zeros(update, rate):
    counts = {name: int((g == 0).sum()) for name, g in sparsify(update, rate).items()}
    assert counts == {name: zeros(g.numel(), rate) for name, g in update.items()}


@pytest.mark.parametrize("rate", RATES)
def test_the_largest_by_magnitude_stay_as_they_are(update, rate):
    sent = sparsify(update, rate)
    assert list(sent) == list(update)
    for name, g in update.items():
        values, received = g.numpy().ravel(), sent[name].numpy().ravel()
        kept = received != 0
        assert sent[name].shape == g.shape
        assert np.array_equal(received[kept], values[kept])
        by_size = np.sort(np.abs(values))[::-1]
        assert np.array_equal(np.sort(np.abs(received[kept]))[::-1], by_size[: kept.sum()])


def test_ties_do_not_change_the_count():
    sent = sparsify({"w": torch.ones(100)}, "0.9")["w"]
    assert sent.count_nonzero() == 10


def test_strides_do_not_matter(update):
    wide = update["(3, 2, 5, 5)"]
    plain = sparsify({"w": wide}, "0.9")["w"]
    for strided in (wide.to(memory_format=torch.channels_last), wide.mT.contiguous().mT):
        assert torch.equal(sparsify({"w": strided}, "0.9")["w"], plain)


def test_the_clients_update_is_not_changed(update):
    before = {name: g.clone() for name, g in update.items()}
    for g in sparsify(update, "0").values():
        g.zero_()
    sparsify(update, "0.9")
    assert all(torch.equal(update[name], before[name]) for name in update)


@pytest.mark.parametrize("rate", [1, 1.5, -0.1, math.nan, math.inf, -math.inf])
def test_a_rate_outside_its_range_is_refused_in_one_line(rate):
    with pytest.raises(InputError, match=str(rate)) as error:
        Sparsification(rate)
    assert "\n" not in str(error.value)


# The attacker's surrogate.


@pytest.fixture
def received(update):
    """What two clients sent, (R, *shape): other zeros in each run."""
    generator = torch.Generator().manual_seed(1)
    other = {name: torch.randn(g.shape, generator=generator) for name, g in update.items()}
    pairs = [sparsify(update, "0.5"), sparsify(other, "0.9")]
    return {name: torch.stack([pair[name] for pair in pairs]) for name in update}


@pytest.fixture
def dummy(received):
    generator = torch.Generator().manual_seed(2)
    return {name: torch.randn(g.shape, generator=generator).requires_grad_() for name, g in received.items()}


def test_estimate_masks_exactly_what_was_received_as_zero_in_each_run(received, dummy):
    seen = Sparsification.estimate(received, VICTIM)(dummy)
    assert list(seen) == list(dummy)
    for name in dummy:
        expected = np.where(received[name].numpy() == 0, 0, dummy[name].detach().numpy())
        assert np.array_equal(seen[name].detach().numpy(), expected)


def test_estimate_is_the_defense_on_the_clients_own_update(update):
    sent = sparsify(update, "0.9")
    seen = Sparsification.estimate({n: g[None] for n, g in sent.items()}, VICTIM)(
        {n: g[None] for n, g in update.items()}
    )
    assert all(torch.equal(seen[name][0], sent[name]) for name in update)


def test_estimate_lets_the_gradient_through_where_something_was_received(received, dummy):
    seen = Sparsification.estimate(received, VICTIM)(dummy)
    gradients = {name: torch.full_like(g, 3.0) for name, g in seen.items()}
    grads = torch.autograd.grad(list(seen.values()), list(dummy.values()), list(gradients.values()))
    for grad, g in zip(grads, received.values(), strict=True):
        assert torch.equal(grad, torch.where(g == 0, 0.0, 3.0))


def test_by_rate_prunes_every_tensor_at_the_share_of_zeros_in_all_that_was_received(received, dummy):
    """As the code of GGL and GIFD has it, in numpy."""
    seen = by_rate(received, VICTIM)(dummy)
    assert list(seen) == list(dummy)
    for r in range(2):
        all_received = np.concatenate([g[r].numpy().ravel() for g in received.values()])
        percentage = 100 * np.mean(all_received == 0)
        for name, g in dummy.items():
            values = g[r].detach().numpy()
            expected = np.where(np.abs(values) < np.percentile(np.abs(values), percentage), 0, values)
            assert np.array_equal(seen[name][r].detach().numpy(), expected), name


def test_by_rate_looks_at_no_position(received, dummy):
    moved = {name: g.flatten(1).flip(1).view_as(g) if g.ndim > 1 else g for name, g in received.items()}
    assert any(not torch.equal(g, moved[name]) for name, g in received.items())
    one, other = (by_rate(given, VICTIM)(dummy) for given in (received, moved))
    assert all(torch.equal(g, other[name]) for name, g in one.items())


@pytest.mark.parametrize("rate", ["0", "0.29", "0.5", "0.9"])
def test_by_rate_is_the_defense_on_the_clients_own_update_of_one_tensor(update, rate):
    one = {"w": update["(3, 2, 5, 5)"]}
    sent = sparsify(one, rate)
    seen = by_rate({"w": sent["w"][None]}, VICTIM)({"w": one["w"][None]})
    assert torch.equal(seen["w"][0], sent["w"])


def test_by_rate_lets_the_gradient_through_where_entries_are_kept(received, dummy):
    seen = by_rate(received, VICTIM)(dummy)
    gradients = torch.autograd.grad(sum(g.sum() for g in seen.values()), list(dummy.values()))
    for (name, g), gradient in zip(seen.items(), gradients, strict=True):
        assert torch.equal(gradient, (g != 0).float()), name


def test_by_rate_keeps_what_is_not_finite_and_the_largest_entry():
    zeros = {"w": torch.zeros(1, 4)}
    assert by_rate(zeros, VICTIM)({"w": torch.tensor([[1.0, -3.0, 2.0, 0.0]])})["w"].tolist() == [[0, -3, 0, 0]]
    assert by_rate(zeros, VICTIM)({"w": torch.full((1, 4), torch.nan)})["w"].isnan().all()


def test_estimate_needs_no_instance():
    """So it cannot see the client's rate."""
    for kind in (Defense, Sparsification):
        assert isinstance(inspect.getattr_static(kind, "estimate"), staticmethod)
