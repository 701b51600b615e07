"""Local optimizers against torch's own, on the client and as an attacker repeats them."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gibench
from attacks.engine.gradients import victim_gradients
from attacks.labels import methods
from benchmark.registry import open_optimizer, registered
from victims.client import LocalTraining, fed_avg, fed_sgd
from victims.errors import InputError, Notice
from victims.modules import build
from victims.observation import Knowledge, Observation
from victims.victim import Victim

B, SHAPE = 4, (3, 8, 8)
LABELS = torch.tensor([2, 4, 0, 2])
PIXELS = torch.rand(B, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TORCHS = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr),
    "sgd:0.9": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "sgd:0.9:0.01": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=0.01),
    "sgd:0:0.5": lambda p, lr: torch.optim.SGD(p, lr=lr, weight_decay=0.5),
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr),
    "adam:0.01": lambda p, lr: torch.optim.Adam(p, lr=lr, weight_decay=0.01),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr),
    "adamw:0.1": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.1),
}
AVERAGES = [text for text in TORCHS if text.startswith("sgd")]
every_optimizer = pytest.mark.parametrize("text", TORCHS)
every_schedule = pytest.mark.parametrize(
    ("clients", "epochs", "mini_batch"), [(1, 1, 4), (1, 3, 2), (2, 3, 1)], ids=["1 step", "6 steps", "2 clients"]
)


class Normed(nn.Sequential):
    """With units that are never active, whose weights get no gradient."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5))
        nn.init.constant_(self[1].bias[:1], -100.0)


def make_victim(training=False):
    return Victim(build(Normed, seed=0).double(), mean=(0.5,) * 3, std=(0.2,) * 3, training=training)


def trained_by_torch(text, images, local, training=False):
    """theta_0 - theta_T of a loop with torch's optimizer, the mean over the clients."""
    model = build(Normed, seed=0).double()
    moved = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for x, y in zip(images.chunk(local.clients), LABELS.chunk(local.clients), strict=True):
        client = copy.deepcopy(model).train(training)
        optimizer = TORCHS[text](client.parameters(), local.lr)
        for _ in range(local.epochs):
            for part, of_part in zip(x.split(local.mini_batch), y.split(local.mini_batch), strict=True):
                optimizer.zero_grad()
                cross_entropy(client(part), of_part).backward()
                optimizer.step()
        for (name, start), end in zip(model.named_parameters(), client.parameters(), strict=True):
            moved[name] += (start - end).detach() / local.clients
    return moved


def test_every_optimizer_of_the_folder_is_tested():
    assert {text for each in registered("local optimizer").values() for text in each.examples} <= TORCHS.keys()


@every_optimizer
@every_schedule
@pytest.mark.parametrize("training", [False, True])
def test_a_client_moves_as_by_torchs_optimizer(text, clients, epochs, mini_batch, training):
    local = LocalTraining(
        epochs=epochs, mini_batch=mini_batch, clients=clients, lr=0.05, optimizer=open_optimizer(text)
    )
    victim = make_victim(training)
    update = fed_avg(victim, PIXELS, LABELS, local)
    for name, expected in trained_by_torch(text, victim.normalize(PIXELS), local, training).items():
        torch.testing.assert_close(update[name], expected, rtol=0, atol=1e-7)
    assert not any(g.requires_grad for g in update.values())


class Spare(Normed):
    """With weights that are not in the loss, and some that are, but have a gradient of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.zero = nn.Parameter(torch.ones(5))

    def forward(self, x):
        for layer in list(self)[:5]:
            x = layer(x)
        return x + (self.zero - 2).relu()


@every_optimizer
def test_weights_that_are_not_in_the_loss_stay_where_they_are(text):
    model = build(Spare, seed=0).double()
    victim = Victim(model, mean=(0.5,) * 3, std=(0.2,) * 3, training=False)
    local = LocalTraining(epochs=2, mini_batch=2, lr=0.1, optimizer=open_optimizer(text))
    x = victim.normalize(PIXELS)
    update = fed_avg(victim, PIXELS, LABELS, local)
    repeated = [victim_gradients(victim, x[None], LABELS[None], local=local, vectorized=each) for each in (True, False)]
    optimizer, start = TORCHS[text](model.eval().parameters(), 0.1), copy.deepcopy(model)
    for part in [slice(0, 2), slice(2, 4)] * 2:
        optimizer.zero_grad()
        cross_entropy(model(x[part]), LABELS[part]).backward()
        optimizer.step()
    moved = {name: (p - model.get_parameter(name)).detach() for name, p in start.named_parameters()}
    for name, expected in moved.items():
        torch.testing.assert_close(update[name], expected, rtol=0, atol=1e-7)
    for name in ("unused.weight", "unused.bias"):
        assert not any(g.any() for g in (update[name], moved[name], *(each[name] for each in repeated)))
    received = Observation("t", victim, update, B, SHAPE, 5, Knowledge(local=local)).gradient()
    for each in repeated:
        for name, g in each.items():
            torch.testing.assert_close(g[0], received[name], rtol=1e-7, atol=1e-9)


@every_optimizer
@pytest.mark.parametrize("vectorized", [True, False])
def test_an_attacker_repeats_the_steps_differentiably(text, vectorized):
    """In the same units as what it received, and with the slopes of finite differences."""
    victim, local = make_victim(), LocalTraining(epochs=2, mini_batch=2, lr=0.05, optimizer=open_optimizer(text))
    x = victim.normalize(PIXELS)
    update = fed_avg(victim, PIXELS, LABELS, local)
    received = Observation("t", victim, update, B, SHAPE, 5, Knowledge(local=local)).gradient()

    def repeated(images):
        return victim_gradients(victim, images[None], LABELS[None], local=local, vectorized=vectorized)

    for name, g in repeated(x).items():
        torch.testing.assert_close(g[0], received[name], rtol=1e-7, atol=1e-9)
    draws = torch.Generator().manual_seed(1)
    along = torch.randn(x.shape, generator=draws, dtype=torch.float64)
    mix = {n: torch.randn(g.shape, generator=draws, dtype=torch.float64) for n, g in update.items()}

    def mixed(images):
        return sum((mix[name] * g[0]).sum() for name, g in repeated(images).items())

    x.requires_grad_()
    (slope,) = torch.autograd.grad(mixed(x), x)
    h = 1e-6
    with torch.no_grad():
        measured = (mixed(x + h * along) - mixed(x - h * along)) / (2 * h)
    assert slope.isfinite().all()
    torch.testing.assert_close((slope * along).sum(), measured, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("text", AVERAGES)
def test_to_first_order_the_update_is_the_gradient_whatever_momentum_and_decay(text):
    victim = make_victim()
    gradient = fed_sgd(victim, PIXELS, LABELS)
    local = LocalTraining(epochs=5, lr=1e-7, optimizer=open_optimizer(text))
    update = fed_avg(victim, PIXELS, LABELS, local)
    found = Observation("t", victim, update, B, SHAPE, 5, Knowledge(local=local)).gradient()
    for name, g in gradient.items():
        torch.testing.assert_close(found[name], g, rtol=1e-3, atol=1e-5)


def test_how_often_a_constant_gradient_counts_with_momentum():
    """After T steps of torch's SGD along the same gradient."""
    theta = torch.zeros(1, requires_grad=True)
    sgd = torch.optim.SGD([theta], lr=1.0, momentum=0.8)
    for steps in range(1, 7):
        theta.grad = torch.ones(1)
        sgd.step()
        assert open_optimizer("sgd:0.8").counts(steps) == pytest.approx(-theta.item(), rel=1e-5)


def test_what_was_not_sent_stays_zero():
    """A sparsified entry tells nothing of the weight decay."""
    victim, local = make_victim(), LocalTraining(lr=0.1, optimizer=open_optimizer("sgd:0.9:0.1"))
    update = {name: torch.zeros_like(g) for name, g in fed_sgd(victim, PIXELS, LABELS).items()}
    found = Observation("t", victim, update, B, SHAPE, 5, Knowledge(local=local)).gradient()
    assert not any(g.any() for g in found.values())


def observe(text, **options):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 5))
    return gibench.capture(model.double(), PIXELS, LABELS, lr=0.01, optimizer=text, **options)


@pytest.mark.parametrize(
    ("text", "match", "said"), [("sgd:0.9", "aga", 0), ("adam", "aga", 1), ("adam", "sme", 1), ("adamw", "fa", 0)]
)
def test_adams_steps_are_matched_as_gradients_with_a_notice_or_repeated(text, match, said):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Notice)
        found = gibench.attack("ig", observe(text, epochs=2), steps=2, restarts=1, match=match)
    assert found.cost.isfinite()
    assert sum("no steps along gradients" in str(each.message) for each in caught) == said


def cosine(one, other):
    dot, one2, other2 = (sum((a[n] * b[n]).sum() for n in one) for a, b in ((one, other), (one, one), (other, other)))
    return float(dot / (one2 * other2).sqrt())


@pytest.mark.parametrize("defense", ["clipping:1e-8:global", "clipping:1e-8", "sparsification:0.5", "noise:1e-9"])
@pytest.mark.parametrize("match", ["aga", "fa"])
def test_an_attacker_has_weight_decay_as_a_defense_left_it(defense, match):
    """The private batch is matched, and what was received is no farther from the gradient than as it was sent."""
    model = build(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 5)), seed=0
    ).double()
    observation = gibench.capture(model, PIXELS, LABELS, lr=1e-6, epochs=2, optimizer="sgd:0.9:0.05", defense=defense)
    victim, received = observation.victim, {name: g[None] for name, g in observation.gradient().items()}
    local = observation.knowledge.local if match == "fa" else None
    dummy = victim_gradients(victim, victim.normalize(PIXELS)[None], LABELS[None], local=local)
    assert cosine(observation.knowledge.estimate(received, victim)(dummy), received) > 0.99999
    gradient = fed_sgd(victim, PIXELS, LABELS)
    assert cosine(observation.gradient(), gradient) > cosine(observation.update, gradient) - 1e-6


class Headed(nn.Module):
    """With a head that is not in the loss."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 5))
        self.idle = nn.Linear(144, 5)

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize(
    "defense", [{}, {"defense": "dp_sgd:10:1e-9"}, {"defense": "clipping:1e-8:global", "adapt": False}]
)
def test_an_attacker_who_does_not_know_the_rate_adds_the_decay_to_its_own_gradient(decay, defense):
    """It cannot be taken out of what was received. Parameters that are not in the loss have none."""
    model = build(Headed, seed=0).double()
    options = {"lr": 1e-6, "epochs": 2, "optimizer": f"sgd:0.9:{decay}", "know_lr": False, **defense}
    observation = gibench.capture(model, PIXELS, LABELS, **options)
    victim, received = observation.victim, {name: g[None] for name, g in observation.gradient().items()}
    dummy = victim_gradients(victim, victim.normalize(PIXELS)[None], LABELS[None])
    known = observation.knowledge
    assert known.decayed == (decay > 0)
    assert (known.estimate is None) == (decay == 0 and defense.get("adapt", True) == (not defense))
    matched = known.estimate(received, victim)(dummy) if known.estimate else dummy
    assert cosine(matched, received) > 1 - 1e-8
    assert (cosine(dummy, received) < 1 - 1e-5) == (decay > 0)


def test_decay_is_taken_out_where_it_comes_after_the_defense():
    plain, private = (observe("sgd:0.9:0.5", **defense) for defense in ({}, {"defense": "dp_sgd:0.1:0"}))
    for each in (plain, private):
        theta = each.victim.parameters
        left_in = each.knowledge.local.as_gradient(each.update, None, B)
        sent = {name: g / each.knowledge.local.lr for name, g in left_in.items()}
        for name, g in each.gradient().items():
            torch.testing.assert_close(g, sent[name] - 0.5 * theta[name])


@pytest.mark.parametrize("name", methods())
def test_label_methods_that_count_refuse_steps_that_are_no_gradients(name):
    observation = replace(observe("adam"), batch_size=1)
    if "scale" not in methods()[name].needs:
        assert len(methods()[name](observation)) == 1
        return
    with pytest.raises(InputError, match=f"^{name} counts by the length") as refusal:
        methods()[name](observation)
    assert "\n" not in str(refusal.value)


def test_closed_forms_take_one_step_of_sgd_with_momentum_and_decay_but_none_of_adam():
    model = build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 1, bias=False)), seed=0).double()
    capture = {"images": PIXELS[:1], "labels": LABELS[:1], "lr": 0.1}
    plain = gibench.attack("rgap", gibench.capture(model, **capture))
    decayed = gibench.attack("rgap", gibench.capture(model, **capture, optimizer="sgd:0.9:0.01"))
    torch.testing.assert_close(decayed.images, plain.images, rtol=1e-6, atol=1e-6)
    with pytest.raises(InputError, match="a single gradient, which the steps of this local optimizer do not give"):
        gibench.attack("rgap", gibench.capture(model, **capture, optimizer="adam"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sgd:1", "0 up to but not including 1"),
        ("sgd:0.9:-1", "decay of 0 or more"),
        ("adam:x", "is a float"),
        ("adamw:0.1:2", "write adamw"),
        ("adm", "did you mean 'adam'"),
        ("torch.optim.Adam", "not a subclass of victims.optimizers.base.Optimizer"),
    ],
)
def test_what_is_no_optimizer_is_refused_in_one_line(text, why):
    with pytest.raises(InputError, match=why) as refusal:
        open_optimizer(text)
    assert "\n" not in str(refusal.value)


def test_an_optimizer_without_a_learning_rate_is_refused():
    with pytest.raises(InputError, match="need a learning rate"):
        gibench.capture(build(Normed, seed=0), PIXELS.float(), LABELS, optimizer="adam")
