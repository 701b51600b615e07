"""Mixup against its definition, written out with torch's cross-entropy of two labels."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmark.tasks.capture import Client, capture
from defenses.base import Chain
from defenses.dp_sgd import DPSGD
from defenses.mixup import Mixup
from victims.client import LocalTraining, fed_avg
from victims.errors import InputError
from victims.losses.base import Own
from victims.modules import build
from victims.victim import Victim, gradient_at

LABELS = torch.tensor([2, 0, 1, 2])
IMAGES = torch.rand(4, 1, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def victim():
    model = build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), seed=0).double()
    return Victim(model, mean=(0.4,), std=(0.3,))


def mixing(victim, alpha=1.0, labels=LABELS, seed=0):
    """What a step computes its gradient on, and the gradient."""
    seen = []

    def plain(theta, x, t):
        seen.append((x, t))
        return gradient_at(victim, theta, x, t)

    mixed = Mixup(alpha).gradient_fn(plain, victim, torch.Generator().manual_seed(seed))
    return mixed(victim.parameters, victim.normalize(IMAGES), labels), seen


def test_images_and_labels_are_mixed_alike_and_the_loss_is_that_of_both_labels(victim):
    gradient, ((x, t),) = mixing(victim)
    inputs, found = victim.normalize(IMAGES), None
    for share in t.unique().tolist():
        for others in torch.cartesian_prod(*[torch.arange(4)] * 4):
            if len(others.unique()) == 4 and torch.allclose(share * inputs + (1 - share) * inputs[others], x):
                found = share, others
    assert found, "no share and order of the batch give these images"
    share, others = found
    model = nn.Linear(6, 3).double()
    model.load_state_dict({name.removeprefix("1."): p for name, p in victim.parameters.items()})
    logits = model(x.flatten(1))
    (share * cross_entropy(logits, LABELS) + (1 - share) * cross_entropy(logits, LABELS[others])).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(gradient[f"1.{name}"], p.grad)


def test_shares_are_drawn_from_a_beta_distribution(victim):
    """Var = 1 / (4 (2 alpha + 1))."""
    for alpha in (0.2, 1.0, 8.0):
        shares = []
        for seed in range(300):
            _, ((_, t),) = mixing(victim, alpha, torch.tensor([0, 1, 2, 2]), seed)
            shares += [float(t[1, 1])] if 0 < float(t[1, 1]) < 1 else []
        variance = torch.tensor(shares).sub(0.5).square().mean()
        assert variance == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.25)


def test_every_local_step_draws_anew_and_the_generator_decides(victim):
    seen = []

    def update(seed):
        def plain(theta, x, t):
            seen.append(t)
            return gradient_at(victim, theta, x, t)

        mixed = Mixup(1.0).gradient_fn(plain, victim, torch.Generator().manual_seed(seed))
        return fed_avg(victim, IMAGES, LABELS, LocalTraining(epochs=2, lr=0.1), mixed)

    one, again, other = update(0), update(0), update(1)
    assert not torch.equal(seen[0], seen[1])
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["1.weight"], other["1.weight"])


def test_one_logit_mixes_odd_and_even(victim):
    model = build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 1)), seed=0).double()
    victim = Victim(model, mean=(0.4,), std=(0.3,))
    gradient, ((x, t),) = mixing(victim)
    odd = t[:, 1]
    slopes = (model(x.flatten(1)).squeeze(1).sigmoid() - odd) / 4
    torch.testing.assert_close(gradient["1.bias"], slopes.sum()[None])
    assert 0 < float(odd.sum()) == pytest.approx(1.0)  # of four labels one is odd


@pytest.mark.parametrize("alpha", [0.0, -1.0, torch.inf, torch.nan])
def test_an_alpha_that_is_not_above_zero_is_refused_in_one_line(alpha):
    with pytest.raises(InputError, match="mixup takes an alpha above 0") as refusal:
        Mixup(alpha)
    assert "\n" not in str(refusal.value)


def test_images_are_mixed_before_a_defense_that_takes_them_one_by_one(victim):
    """In any order of the two: a single image has no other to be mixed with."""

    def update(*parts):
        of_chain = Chain(parts).gradient_fn(partial(gradient_at, victim), victim, torch.Generator().manual_seed(0))
        return of_chain(victim.parameters, IMAGES, LABELS)

    clipped = DPSGD(0.1, 0.0)
    one, other, alone = update(Mixup(1.0), clipped), update(clipped, Mixup(1.0)), update(clipped)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)
    assert any(not torch.allclose(one[name], alone[name], rtol=1e-3) for name in one)


def test_a_loss_of_classes_alone_is_refused_in_one_line(victim):
    victim.criterion = Own(lambda z, y: nn.functional.multi_margin_loss(z, y))
    with pytest.raises(InputError, match="cannot be used on 3 logits with probabilities as labels") as refused:
        mixing(victim)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("bn", ["exact", "recovered"])
def test_statistics_of_the_images_before_they_were_mixed_are_refused(bn):
    """The client's batch norm never sees these."""
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(24, 3)).double()
    victim = Victim(net, mean=(0.4,), std=(0.3,), training=True)
    for defense in (Mixup(1.0), Chain([Mixup(1.0), DPSGD(1.0, 0.0)])):
        with pytest.raises(InputError, match=f"the defense changes the images, and --bn {bn} .* choose --bn running"):
            capture(victim, IMAGES, LABELS, Client(defense=defense, bn=bn), task="t", num_classes=3)
