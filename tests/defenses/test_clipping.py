"""Clipping against norms in numpy, and the attacker's surrogate of it on captured updates."""

import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from attacks.engine.distances import cosine, squared_l2
from benchmark.registry import open_defense
from defenses.clipping import Clipping, by_bound
from victims.errors import InputError

VICTIM = SimpleNamespace(model=None)  # of one round; norms are looked at in what was received alone


def lengths(update):
    return {name: float(np.sqrt((g.double().numpy().ravel() ** 2).sum())) for name, g in update.items()}


def total(update):
    return math.sqrt(sum(n**2 for n in lengths(update).values()))


def clip(update, *parameters):
    return Clipping(*parameters)(update, torch.Generator())


def one(update):
    return {name: g[None] for name, g in update.items()}


@pytest.fixture
def update(capture):
    """Of a LeNet on photographs, undefended; eight tensors."""
    return capture(rate=None).observation.update


# On the client.


def test_every_tensor_is_compared_with_the_bound_by_itself(update):
    bound = sorted(lengths(update).values())[4]
    sent = clip(update, bound)
    for name, g in update.items():
        shortened = g.numpy() * min(bound / lengths(update)[name], 1)
        assert np.allclose(sent[name].numpy(), shortened, rtol=1e-5, atol=0)
    assert sum(n == pytest.approx(bound, rel=1e-5) for n in lengths(sent).values()) == 4


def test_or_all_tensors_together(update):
    sent = clip(update, total(update) / 3, "global")
    for name, g in update.items():
        assert np.allclose(sent[name].numpy(), g.numpy() / 3, rtol=1e-5, atol=0)


@pytest.mark.parametrize("by", ["layer", "global"])
def test_what_is_short_enough_does_not_change(update, by):
    sent = clip(update, 1.01 * total(update), by)
    assert all(torch.equal(sent[name], g) for name, g in update.items())


@pytest.mark.parametrize("by", ["layer", "global"])
def test_zeros_stay_zeros(by):
    assert not clip({"w": torch.zeros(3), "b": torch.zeros(())}, 1.0, by)["w"].any()


@pytest.mark.parametrize("bound", [0, -1, math.nan, math.inf])
def test_an_invalid_bound_is_refused_in_one_line(bound):
    with pytest.raises(InputError, match=str(bound)) as error:
        Clipping(bound)
    assert "\n" not in str(error.value)


def test_the_command_line_takes_both_forms():
    assert vars(open_defense("clipping:4")) == {"bound": 4.0, "by": "layer"}
    assert vars(open_defense("clipping:4:global")) == {"bound": 4.0, "by": "global"}


# The attacker's surrogate.


def defended(update):
    """Every case: all tensors clipped, some, one, none; all together, and none of them."""
    sizes = sorted(lengths(update).values())
    bounds = [0.5 * sizes[0], 0.5 * (sizes[3] + sizes[4]), 0.5 * (sizes[-1] + sizes[-2]), 2 * sizes[-1]]
    whole = [0.01 * total(update), 0.7 * total(update), 2 * total(update)]
    return [clip(update, b) for b in bounds] + [clip(update, b, "global") for b in whole]


def test_at_the_truth_the_surrogate_is_what_was_received_in_every_case(update):
    for sent in defended(update):
        seen = Clipping.estimate(one(sent), VICTIM)(one(update))
        for name, g in sent.items():
            assert torch.allclose(seen[name][0], g, rtol=1e-5, atol=0)


def test_clipping_each_tensor_hides_the_truth_only_from_a_non_adaptive_attacker(update):
    sent = one(clip(update, sorted(lengths(update).values())[4]))
    adapting = Clipping.estimate(sent, VICTIM)(one(update))
    for distance in (cosine, squared_l2):
        assert distance(adapting, sent) < 1e-5 * distance(one(update), sent)


def test_every_tensor_is_compared_with_the_norm_that_was_received(update):
    generator = torch.Generator().manual_seed(0)
    dummy = {
        name: 10.0 ** (i - 4) * torch.randn(g.shape, generator=generator) for i, (name, g) in enumerate(update.items())
    }
    sent = clip(update, sorted(lengths(update).values())[4])
    seen = {name: g[0] for name, g in Clipping.estimate(one(sent), VICTIM)(one(dummy)).items()}
    shortened = {name: lengths(dummy)[name] > lengths(sent)[name] for name in dummy}
    assert set(shortened.values()) == {True, False}
    for name, g in dummy.items():
        factor = lengths(sent)[name] / lengths(dummy)[name] if shortened[name] else 1
        assert np.allclose(seen[name].numpy(), g.numpy() * factor, rtol=1e-5, atol=0)


def test_a_longer_dummy_is_shortened_to_what_was_received(update):
    """So little is lost if the learning rate of an update is not known and the received update is too short."""
    for sent in defended(update):
        seen = Clipping.estimate(one(sent), VICTIM)(one({name: 50 * g for name, g in update.items()}))
        assert all(torch.allclose(seen[name][0], g, rtol=1e-5, atol=0) for name, g in sent.items())


@pytest.mark.parametrize("after", ["noise:0.0001", "sparsification:0.5"])
def test_it_holds_if_another_defense_follows(update, after):
    bound = sorted(lengths(update).values())[4]
    both, other = open_defense(f"clipping:{bound}+{after}"), open_defense(after)
    sent = one(both(update, torch.Generator().manual_seed(0)))
    adaptive, non_adaptive = both.surrogate()(sent, VICTIM), other.surrogate()(sent, VICTIM)
    assert cosine(adaptive(one(update)), sent) < 0.1 * cosine(non_adaptive(one(update)), sent)


@pytest.mark.parametrize("longer", [0.1, 1, 50])
def test_by_bound_clips_the_whole_dummy_to_the_norm_of_all_that_was_received(update, longer):
    """As the code of GGL has it: the norm of the norms of all tensors."""
    for sent in defended(update):
        dummy = {name: longer * g for name, g in update.items()}
        factor = min(1, total(sent) / total(dummy))
        seen = by_bound(one(sent), VICTIM)(one(dummy))
        for name, g in dummy.items():
            assert np.allclose(seen[name][0].numpy(), g.numpy() * factor, rtol=1e-5, atol=0)


def test_by_bound_recovers_a_global_bound_and_no_layers_bound(update):
    sent = {by: one(clip(update, 0.5 * total(update) / 8**0.5, by)) for by in ("global", "layer")}
    seen = {by: by_bound(received, VICTIM)(one(update)) for by, received in sent.items()}
    assert squared_l2(seen["global"], sent["global"]) < 1e-8 * squared_l2(one(update), sent["global"])
    assert squared_l2(seen["layer"], sent["layer"]) > 1e-3 * squared_l2(one(update), sent["layer"])


def test_runs_do_not_affect_each_other(update):
    cases = defended(update)
    received = {name: torch.stack([sent[name] for sent in cases]) for name in update}
    dummy = {name: torch.stack([g] * len(cases)) for name, g in update.items()}
    by_run = [by_bound(one(sent), VICTIM)(one(update)) for sent in cases]
    for name, g in by_bound(received, VICTIM)(dummy).items():
        assert torch.allclose(g, torch.cat([seen[name] for seen in by_run]), rtol=1e-5, atol=0)
    seen = Clipping.estimate(received, VICTIM)(dummy)
    for name in update:
        assert torch.allclose(seen[name], received[name], rtol=1e-5, atol=0)


def test_its_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    sizes = [((3,), 0.5), ((2, 2), 4), ((), 0.1), ((4,), 6)]
    g = {str(i): f * torch.randn(2, *s, generator=generator).double() for i, (s, f) in enumerate(sizes)}
    received = {name: torch.stack(list(pair)) for name, pair in g.items()}
    halves = [clip({name: t[run] for name, t in received.items()}, 2.0) for run in range(2)]
    transform = Clipping.estimate({name: torch.stack([h[name] for h in halves]) for name in g}, VICTIM)
    dummy = [(1.3 * t).requires_grad_() for t in g.values()]

    def seen(*tensors):
        return tuple(transform(dict(zip(g, tensors, strict=True))).values())

    assert torch.autograd.gradcheck(seen, dummy)
    assert torch.autograd.gradgradcheck(seen, dummy)


@pytest.mark.parametrize("zero", ["dummy", "received", "both", "one tensor of each"])
def test_zeros_have_finite_gradients(update, zero):
    sent, dummy = one(clip(update, sorted(lengths(update).values())[4])), one(update)
    nothing = {name: torch.zeros_like(g) for name, g in dummy.items()}
    if zero in ("received", "both"):
        sent = nothing
    if zero in ("dummy", "both"):
        dummy = nothing
    if zero == "one tensor of each":
        shortest = min(update, key=lengths(update).get)
        sent, dummy = {**sent, shortest: nothing[shortest]}, {**dummy, shortest: nothing[shortest]}
    dummy = {name: g.clone().requires_grad_() for name, g in dummy.items()}
    for estimate in (Clipping.estimate, by_bound):
        seen = estimate(sent, VICTIM)(dummy)
        gradients = torch.autograd.grad(sum(g.sum() for g in seen.values()), list(dummy.values()))
        assert all(g.isfinite().all() for g in (*seen.values(), *gradients))


def test_estimate_needs_no_instance():
    """So it cannot see the client's bound, nor what was compared with it."""
    assert isinstance(inspect.getattr_static(Clipping, "estimate"), staticmethod)
