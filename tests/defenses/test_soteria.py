"""Soteria's mask against a loop over features and images, on many kinds of victims, and the surrogate."""

import math
import warnings
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.registry import open_defense
from benchmark.tasks.capture import Client, capture
from defenses.base import Chain
from defenses.dp_sgd import DPSGD
from defenses.soteria import Soteria
from defenses.sparsification import Sparsification
from victims.client import LocalTraining, fed_avg, fed_sgd
from victims.errors import InputError
from victims.modules import build
from victims.optimizers.sgd import SGD
from victims.rounds import Rounds
from victims.victim import Victim, gradient_at


class Net(nn.Module):
    """Two hidden linear layers after a convolution, with one kind of units."""

    def __init__(self, unit=nn.ReLU):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), unit(), nn.MaxPool2d(3), nn.Flatten())
        self.fc1 = nn.Linear(4 * 2 * 2, 20)
        self.unit = unit()
        self.fc2 = nn.Linear(20, 5)

    def forward(self, x):
        return self.fc2(self.unit(self.fc1(self.body(x))))


class Residual(nn.Module):
    """A block with batch norm and a shortcut, averaged over positions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.norm1, self.conv, self.norm2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.features(x))

    def features(self, x):
        x = self.stem(x)
        return (x + self.norm2(self.conv(self.norm1(x).relu()))).relu().mean((2, 3))


class Tokens(nn.Module):
    """Attention over patches, a layer norm, and a linear layer on every token."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, stride=8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.each = nn.Linear(8, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        t = self.patches(x).flatten(2).mT
        t = self.norm(t + self.attention(t, t, t)[0])
        return self.head(self.each(t).tanh().mean(1))


def victim_of(make=Net, training=False, **options):
    return Victim(build(make, seed=0, **options), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), training=training)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 3, 16, 16, generator=generator), torch.tensor([1, 4, 1])


def defended(victim, batch, *soteria):
    gradient_fn = Soteria(*soteria).gradient_fn(partial(gradient_at, victim), victim, torch.Generator())
    return fed_sgd(victim, *batch, gradient_fn)


def representation(victim, layer, x):
    """The inputs of the layer, from the model's own modules called one by one."""
    model = victim.model
    if isinstance(model, Tokens):
        t = model.patches(x).flatten(2).mT
        t = model.norm(t + model.attention(t, t, t)[0])
        return t if layer == "each" else model.each(t).tanh().mean(1)
    if isinstance(model, Residual):
        return model.features(x)
    hidden = model.body(x)
    return hidden if layer == "fc1" else model.unit(model.fc1(hidden))


def looped_mask(victim, layer, x, rate):
    """Which columns are kept, feature by feature and image by image (and token by token), in plain autograd."""
    x = x.clone().requires_grad_()
    r = representation(victim, layer, x)
    F = r.shape[-1]
    r = r.reshape(len(x), -1, F)
    ratio = [0.0] * F
    for f in range(F):
        for p in range(r.shape[1]):
            for i in range(len(x)):
                # what the batch's images do to each other belongs to the image whose pixels move
                (gradient,) = torch.autograd.grad(r[:, p, f].sum(), x, retain_graph=True)
                ratio[f] += float(gradient[i].double().square().sum().sqrt() / (r[i, p, f].detach().abs() + 1e-8))
    live = [f for f in range(F) if bool((r[:, :, f] != 0).any())]
    out = sorted(live, key=lambda f: ratio[f])[: math.floor(rate * len(live) + 1e-9)]
    return torch.tensor([f not in out for f in range(F)])


CASES = {
    "relu": (Net, {}, "fc2", False),
    "sigmoid": (Net, {"unit": nn.Sigmoid}, "fc2", False),
    "hidden": (Net, {}, "fc1", False),
    "signed": (Net, {"unit": nn.Tanh}, "fc2", False),
    "batch norm, eval": (Residual, {}, "head", False),
    "batch norm, train": (Residual, {}, "head", True),  # which mixes the images
    "tokens": (Tokens, {}, "each", False),
    "behind attention": (Tokens, {}, "head", False),
}


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("case", CASES)
def test_the_mask_is_that_of_a_loop_over_features(batch, case, rate):
    make, options, layer, training = CASES[case]
    victim = victim_of(make, training, **options)
    kept = looped_mask(victim, layer, victim.normalize(batch[0]), rate)
    plain, sent = fed_sgd(victim, *batch), defended(victim, batch, rate, layer)
    assert list(sent) == list(plain)
    for name, g in plain.items():
        expected = torch.where(kept, g, 0) if name == f"{layer}.weight" else g
        assert torch.equal(sent[name], expected), name


def percentile_mask(victim, x, rate, eps):
    """Which columns are kept where eps is added to every feature: numpy's percentile of all ratios, dead ones too."""
    x = x.clone().requires_grad_()
    r = representation(victim, "fc2", x)
    ratio = np.zeros(r.shape[1])
    for f in range(r.shape[1]):
        (gradient,) = torch.autograd.grad(r[:, f].sum(), x, retain_graph=True)
        ratio[f] = sum(g.norm().item() / (value.item() + eps) for g, value in zip(gradient, r[:, f], strict=True))
    return torch.from_numpy(ratio >= np.percentile(ratio, 100 * rate))


@pytest.mark.parametrize("eps", [0.1, 1e-10])
@pytest.mark.parametrize("rate", [0.1, 0.55, 0.58])  # 0.58 of 20 is 11.6, and the percentile prunes 12
def test_with_an_eps_dead_features_are_pruned_first(batch, rate, eps):
    victim, x = victim_of(), victim_of().normalize(batch[0])
    dead = (representation(victim, "fc2", x) == 0).all(0)
    assert 2 <= dead.sum() <= 10  # of 20: a rate of 0.1 is among them, the others are not
    sent, plain = defended(victim, batch, rate, "fc2", eps), fed_sgd(victim, *batch)
    kept = percentile_mask(victim, x, rate, eps)
    assert torch.equal(sent["fc2.weight"], torch.where(kept, plain["fc2.weight"], 0))
    by_default = defended(victim, batch, rate)["fc2.weight"]
    assert kept.sum() == {0.1: 20, 0.55: 9, 0.58: 8}[rate]
    assert torch.equal(sent["fc2.weight"], plain["fc2.weight"]) == (rate == 0.1)
    assert not torch.equal(sent["fc2.weight"], by_default)


def test_the_eps_decides_which_features_go():
    """A small feature with a small gradient: without an eps its ratio is large."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 3), nn.Linear(3, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.diag(torch.tensor([0.01, 1.0, 2.0])))
        model[1].bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
    victim = Victim(model, mean=(0.0,), std=(1.0,))
    one = torch.tensor([0.5, 1.0, 1.0]).view(1, 1, 1, 3), torch.tensor([1])
    # features .005, 10, 2; gradients .01, 1, 2; ratios 2, .1, 1 without an eps, and .095, .099, .95 with .1
    gone = [(defended(victim, one, 0.4, "2", eps)["2.weight"] == 0).all(0).tolist() for eps in (0.0, 1e-10, 0.1)]
    assert gone == [[False, True, False], [False, True, False], [True, False, False]]


def test_chunks_do_not_matter(batch, monkeypatch):
    whole = defended(victim_of(), batch, 0.5)
    monkeypatch.setattr("defenses.soteria.VALUES", 1)  # one feature at a time
    assert all(torch.equal(g, whole[name]) for name, g in defended(victim_of(), batch, 0.5).items())


def test_the_pruned_features_reveal_most_by_the_papers_formula(batch):
    """One image: the largest r_f / |dr_f / dX|, features that are zero last."""
    victim, one = victim_of(), (batch[0][:1], batch[1][:1])
    x = victim.normalize(one[0]).requires_grad_()
    r = representation(victim, "fc2", x)[0]
    worth = []
    for feature in r:
        (gradient_fn,) = torch.autograd.grad(feature, x, retain_graph=True)
        worth.append(float(feature.detach() / gradient_fn.norm()) if feature > 0 else 0.0)
    live = sum(w > 0 for w in worth)
    assert 4 < live < 20
    most = sorted(range(20), key=lambda f: -worth[f])[: int(0.5 * live)]
    gone = (fed_sgd(victim, *one)["fc2.weight"] != 0).any(0) & (defended(victim, one, 0.5)["fc2.weight"] == 0).all(0)
    assert gone.nonzero().flatten().tolist() == sorted(most)


def test_the_classifier_is_the_default(batch):
    assert all(
        torch.equal(g, defended(victim_of(), batch, 0.5, "fc2")[name])
        for name, g in defended(victim_of(), batch, 0.5).items()
    )


def test_local_steps_are_each_masked_by_their_own_images_and_weights(batch):
    victim, local = victim_of(), LocalTraining(epochs=1, mini_batch=2, lr=0.1)
    images, labels = batch
    gradient_fn = Soteria(0.5).gradient_fn(partial(gradient_at, victim), victim, torch.Generator())
    sent = fed_avg(victim, images, labels, local, gradient_fn)
    theta = victim.parameters
    for part in (slice(0, 2), slice(2, 3)):
        at = deepcopy(victim)
        at.model.load_state_dict(theta)
        kept = looped_mask(at, "fc2", victim.normalize(images[part]), 0.5)
        g = fed_sgd(at, images[part], labels[part])
        g["fc2.weight"] = torch.where(kept, g["fc2.weight"], 0)
        theta = {name: p - 0.1 * g[name] for name, p in theta.items()}
    for name, p in victim.parameters.items():
        torch.testing.assert_close(sent[name], p - theta[name], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_weight_decay_hides_no_pruned_feature(batch, epochs, momentum):
    """The surrogate finds pruned features by their zeros, which weight decay moves away from zero."""

    def kept(decay):
        local = LocalTraining(epochs=epochs, lr=0.05, optimizer=SGD(momentum, decay))
        victim = victim_of()
        observation = capture(victim, *batch, Client(defense=Soteria(0.5), local=local), task="t", num_classes=5)
        received = {name: g[None] for name, g in observation.gradient().items()}
        transform = observation.knowledge.estimate(received, victim)
        return transform({name: torch.ones_like(g) for name, g in received.items()})["fc2.weight"][0].any(0)

    assert 0 < kept(0.0).float().mean() < 1
    assert torch.equal(kept(0.01), kept(0.0))


def test_it_comes_before_the_clipping_of_dp_sgd_image_by_image(batch):
    """Each image then has its own mask, and the norm is that of the masked gradient."""
    victim = victim_of()
    chain = Chain([Soteria(0.5), DPSGD(1e-3, 0.0)])
    sent = fed_sgd(victim, *batch, chain.gradient_fn(partial(gradient_at, victim), victim, torch.Generator()))
    total = dict.fromkeys(sent, 0)
    for i in range(3):
        g = defended(victim, (batch[0][i : i + 1], batch[1][i : i + 1]), 0.5)
        norm = torch.cat([t.flatten() for t in g.values()]).norm()
        total = {name: so_far + g[name] * min(1, float(1e-3 / norm)) / 3 for name, so_far in total.items()}
    for name, g in total.items():
        torch.testing.assert_close(sent[name], g, rtol=1e-4, atol=1e-9)


# Refusals.


@pytest.mark.parametrize("rate", [1, 1.5, -0.1, math.nan, math.inf])
def test_a_rate_outside_its_range_is_refused_in_one_line(rate):
    with pytest.raises(InputError, match=str(rate)) as error:
        Soteria(rate)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("eps", ["-0.1", "nan", "inf"])
def test_an_eps_below_zero_is_refused_in_one_line(eps):
    with pytest.raises(InputError, match=eps) as error:
        open_defense(f"soteria:0.3::{eps}")
    assert "\n" not in str(error.value)


def test_an_eps_follows_a_layer_that_may_be_empty():
    named, by_default = open_defense("soteria:0.3:fc1:0.1"), open_defense("soteria:0.3::0.1")
    assert (named.layer, named.eps) == ("fc1", 0.1)
    assert (by_default.layer, by_default.eps) == ("", 0.1)
    assert named.axis != by_default.axis != Soteria(0.3).axis


@pytest.mark.parametrize("layer", ["fc3", "body", "body.0", "fc1.weight"])
def test_a_layer_that_is_not_linear_is_refused_with_those_that_are(layer):
    victim = victim_of()
    with pytest.raises(InputError, match=rf"'{layer}'.*fc1, fc2\.$") as error:
        Soteria(0.5, layer).gradient_fn(partial(gradient_at, victim), victim, torch.Generator())
    assert "\n" not in str(error.value)


def test_a_layer_that_is_never_called_is_refused(batch):
    with pytest.raises(InputError, match=r"attention\.out_proj"):
        defended(victim_of(Tokens), batch, 0.5, "attention.out_proj")


def test_several_rounds_are_refused():
    victim = Victim(Rounds([Net(), Net()]), mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(InputError, match="rounds"):
        Soteria(0.5).gradient_fn(partial(gradient_at, victim), victim, torch.Generator())


# The attacker's surrogate.


@pytest.fixture
def received(batch):
    """What two clients sent, (R, *shape): other masks in each run."""
    victim = victim_of(unit=nn.Sigmoid)
    runs = [defended(victim, batch, 0.5), defended(victim, (batch[0].flip(1), batch[1]), 0.9)]
    return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}


@pytest.fixture
def dummy(received):
    generator = torch.Generator().manual_seed(2)
    return {name: torch.randn(g.shape, generator=generator).requires_grad_() for name, g in received.items()}


def test_estimate_masks_the_columns_that_were_pruned_in_each_run_and_nothing_else(batch, received, dummy):
    victim = victim_of(unit=nn.Sigmoid)
    kept = [
        looped_mask(victim, "fc2", victim.normalize(images), rate)
        for images, rate in ((batch[0], 0.5), (batch[0].flip(1), 0.9))
    ]
    assert not torch.equal(*kept)
    seen = Soteria.estimate(received, victim)(dummy)
    assert list(seen) == list(dummy)
    for name, g in dummy.items():
        expected = torch.stack([g[r] * kept[r] for r in range(2)]) if name == "fc2.weight" else g
        assert torch.equal(seen[name], expected), name


@pytest.mark.parametrize("unit", [nn.ReLU, nn.Sigmoid])
@pytest.mark.parametrize("layer", ["fc1", "fc2"])
def test_estimate_is_the_defense_on_the_clients_own_gradient(batch, unit, layer):
    victim = victim_of(unit=unit)
    sent = defended(victim, batch, 0.5, layer)
    seen = Soteria.estimate({n: g[None] for n, g in sent.items()}, victim)(
        {n: g[None] for n, g in fed_sgd(victim, *batch).items()}
    )
    assert all(torch.equal(seen[name][0], g) for name, g in sent.items())


def test_estimate_lets_gradients_through_where_a_column_was_received(received, dummy):
    seen = Soteria.estimate(received, victim_of())(dummy)
    gradients = torch.autograd.grad(sum(g.sum() for g in seen.values()), list(dummy.values()))
    for (name, g), gradient in zip(received.items(), gradients, strict=True):
        masked = (g == 0).all(1, keepdim=True).expand_as(g) if name == "fc2.weight" else torch.zeros_like(g).bool()
        assert torch.equal(gradient, torch.where(masked, 0.0, 1.0)), name
    assert 0 < float((received["fc2.weight"] == 0).float().mean()) < 1


def test_no_warning_of_slow_operations(batch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        defended(victim_of(), batch, 0.5)


def test_it_comes_before_other_defenses_of_the_update(batch):
    victim = victim_of(unit=nn.Sigmoid)
    chain = Chain([Soteria(0.5), Sparsification(0.5)])
    gradient_fn = chain.gradient_fn(partial(gradient_at, victim), victim, torch.Generator())
    sent = chain(fed_sgd(victim, *batch, gradient_fn), torch.Generator())
    assert int((sent["fc2.weight"] != 0).sum()) == 50
    kept = looped_mask(victim, "fc2", victim.normalize(batch[0]), 0.5)
    assert not sent["fc2.weight"][:, ~kept].any()
