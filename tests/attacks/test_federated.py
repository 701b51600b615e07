"""Updates after local training: `fa` against torch's SGD and finite differences, `aga` against FedSGD."""

import copy
from dataclasses import fields, replace

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy

import gibench
from attacks.dlg import DLG
from attacks.engine import distances
from attacks.engine.gradients import GradientPaths, victim_gradients
from attacks.engine.objective import Objective
from attacks.engine.probe import Probe, vectorizes
from attacks.engine.requirements import check_local_training
from attacks.gi import GI
from attacks.ig import IG
from attacks.rgap import RGAP
from benchmark.check.reach import holds, reachable
from defenses.sparsification import Sparsification
from victims.client import LocalTraining, fed_avg, fed_sgd
from victims.errors import InputError
from victims.modules import build
from victims.observation import Knowledge, Observation
from victims.rounds import Rounds, by_round
from victims.victim import Victim

B, SHAPE = 4, (3, 8, 8)
LABELS = torch.tensor([2, 4, 0, 2])
SCHEDULES = [
    LocalTraining(epochs=3, mini_batch=2, lr=0.3),
    LocalTraining(epochs=2, mini_batch=3, lr=0.3),
    LocalTraining(epochs=2, mini_batch=1, clients=2, lr=0.3),
]
every_schedule = pytest.mark.parametrize("local", SCHEDULES, ids=["6 steps", "uneven", "2 clients"])
each_mode = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
both_ways = pytest.mark.parametrize("vectorized", [True, False], ids=["vectorized", "eager"])


class Normed(nn.Sequential):
    """The least smooth net with batch norm."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(36, 5))


def make_victim(training=False, seed=0):
    return Victim(build(Normed, seed=seed).double(), mean=(0.5,) * 3, std=(0.2,) * 3, training=training)


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


PIXELS = draw(B, *SHAPE)


def observe(victim, local, *, defense=None, know_lr=True):
    """What the server observes, with the sorted labels."""
    update = fed_avg(victim, PIXELS, LABELS, local) if local else fed_sgd(victim, PIXELS, LABELS)
    update = defense(update, torch.Generator()) if defense else update
    told = local if know_lr else replace(local, lr=None)
    knowledge = Knowledge(LABELS.sort().values, defense.surrogate() if defense else None, local=told)
    return Observation("t", victim, update, B, SHAPE, 5, knowledge)


def objective(observation, distance=distances.cosine, match="fa", vectorized=True):
    local = observation.knowledge.local if match == "fa" else None
    paths = GradientPaths(observation.victim, local, vectorized=vectorized)
    return Objective([observation], distance, paths, restarts=2)


def cost(observation, images=None, labels=LABELS, **options):
    """For two instances: these normalized images, by default the true ones in the clients' order, and mirrored ones."""
    x = observation.victim.normalize(PIXELS) if images is None else images
    return objective(observation, **options).cost(torch.stack([x, x.flip(-1)]), labels.expand(2, -1))


# fa.


@both_ways
@each_mode
@every_schedule
def test_the_dummy_update_is_that_of_torchs_sgd_on_the_dummy_images(local, training, vectorized):
    model = build(Normed, seed=0).double()
    images, start = draw(2, B, *SHAPE, seed=1), dict(model.named_parameters())
    victim = Victim(model, mean=(0.5,) * 3, std=(0.2,) * 3, training=training)
    dummy = victim_gradients(victim, images, LABELS.expand(2, -1), local=local, vectorized=vectorized)
    for instance in range(2):
        moved = {name: torch.zeros_like(p) for name, p in start.items()}
        for x, y in zip(images[instance].chunk(local.clients), LABELS.chunk(local.clients), strict=True):
            client = copy.deepcopy(model).train(training)
            sgd = torch.optim.SGD(client.parameters(), lr=local.lr)
            batches = list(zip(x.split(local.mini_batch), y.split(local.mini_batch), strict=True)) * local.epochs
            for mini_batch, of_batch in batches:
                sgd.zero_grad()
                cross_entropy(client(mini_batch), of_batch).backward()
                sgd.step()
            for name, p in client.named_parameters():
                moved[name] += (start[name] - p).detach() / local.clients
        for name, difference in moved.items():
            expected = difference / (local.lr * len(batches))
            torch.testing.assert_close(dummy[name][instance], expected, rtol=0, atol=1e-12)


@both_ways
@each_mode
@every_schedule
@pytest.mark.parametrize("defense", [None, Sparsification(0.5)], ids=["none", "sparse"])
def test_fa_costs_nothing_at_the_truth_in_the_clients_order(defense, local, training, vectorized):
    observation = observe(make_victim(training), local, defense=defense)
    truth, mirrored = cost(observation, vectorized=vectorized).tolist()
    assert abs(truth) < 1e-12
    assert mirrored > 1e-3
    assert cost(observation, distance=distances.squared_l2, vectorized=vectorized)[0] < 1e-20


@pytest.mark.parametrize("match", ["fa", "sme"])
def test_one_attack_matches_a_gradient_and_then_an_update_of_training_as_new_attacks_do(match):
    victim = make_victim()
    gradient, trained = observe(victim, None), observe(victim, SCHEDULES[0])
    attack, new = (IG(steps=2, restarts=1, match=match) for _ in range(2))
    attack.run([gradient])
    assert torch.equal(attack.run([trained]).cost, new.run([trained]).cost)


def test_in_another_order_the_truth_has_a_cost_because_mini_batches_differ():
    victim, order = make_victim(), LABELS.argsort()
    split, whole = (observe(victim, LocalTraining(epochs=2, mini_batch=b, lr=0.3)) for b in (2, None))
    x = victim.normalize(PIXELS)[order]
    assert cost(split, x, LABELS[order])[0] > 1e-4
    assert abs(cost(whole, x, LABELS[order])[0]) < 1e-12


@both_ways
@each_mode
@every_schedule
def test_gradients_of_fa_match_finite_differences(local, training, vectorized):
    observation = observe(make_victim(training), local)
    of = objective(observation, distances.squared_l2, vectorized=vectorized)
    rest = draw(2, B, *SHAPE, seed=1)
    patch = draw(2, B, 1, 1, 1, seed=2).requires_grad_()  # gradcheck evaluates twice per entry

    def cost(patch):
        return of.cost(rest + nn.functional.pad(patch, (3, 4, 2, 5, 1, 1)), LABELS.expand(2, -1))

    assert gradcheck(cost, (patch,), eps=1e-6, atol=1e-7)


@each_mode
@every_schedule
def test_vectorized_and_eager_have_the_same_gradients(local, training):
    observation = observe(make_victim(training), local)
    images = draw(2, B, *SHAPE, seed=1).requires_grad_()
    gradients = []
    for vectorized in (True, False):
        total = objective(observation, vectorized=vectorized).cost(images, LABELS.expand(2, -1)).sum()
        gradients.append(torch.autograd.grad(total, images)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


@both_ways
def test_soft_labels_have_gradients_through_all_steps(vectorized):
    of = objective(observe(make_victim(), SCHEDULES[0]), vectorized=vectorized)
    images, logits = draw(2, B, *SHAPE, seed=1), draw(2, 1, 5, seed=3).requires_grad_()
    rest = draw(2, B - 1, 5, seed=4)
    assert gradcheck(lambda y: of.cost(images, torch.cat([y, rest], 1).softmax(-1)), (logits,), eps=1e-6, atol=1e-7)


class LayerNormed(nn.Sequential):
    """torch's layer norm, whose second derivative is wrong under vmap."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.LayerNorm([4, 6, 6]), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 5))


def test_probing_finds_whether_torch_func_can_repeat_the_training():
    assert vectorizes(Probe(make_victim(training=True), SHAPE, B, SCHEDULES[2]))
    wrong = Victim(build(LayerNormed, seed=0), mean=(0.5,) * 3, std=(0.2,) * 3)
    with pytest.warns(UserWarning, match="disagree"):
        assert not vectorizes(Probe(wrong, SHAPE, B, SCHEDULES[0]))


# aga.


@each_mode
@pytest.mark.parametrize("distance", [distances.cosine, distances.squared_l2, distances.layer_l2])
@pytest.mark.parametrize("match", ["aga", "fa"])
def test_after_one_step_both_equal_fed_sgd_matching(match, distance, training):
    victim, images = make_victim(training), draw(B, *SHAPE, seed=1)
    sgd, avg = (observe(victim, local) for local in (None, LocalTraining(lr=0.01)))
    expected = cost(sgd, images, distance=distance, match=match)
    torch.testing.assert_close(cost(avg, images, distance=distance, match=match), expected, rtol=1e-9, atol=1e-12)


@every_schedule
def test_aga_compares_the_mean_gradient_with_the_gradient_of_the_whole_batch(local):
    """Eqs. 12 and 13, written out."""
    victim = make_victim()
    observation, x = observe(victim, local), draw(B, *SHAPE, seed=1)
    received = fed_avg(victim, PIXELS, LABELS, local)
    T = {0: 6, 1: 4, 2: 4}[SCHEDULES.index(local)]
    own = fed_sgd(victim, victim.denormalize(x), LABELS)
    expected = sum((own[name] - received[name] / (0.3 * T)).square().sum() for name in own)
    found = cost(observation, x, distance=distances.squared_l2, match="aga")[0]
    torch.testing.assert_close(found, expected)


def test_an_attack_matches_by_aga_and_lowers_its_cost():
    result = IG(steps=40, restarts=1).run([observe(make_victim(), SCHEDULES[0])])
    assert result.cost.item() < result.curve[0][1].item() - 0.1
    assert result.gradient_evaluations == 40


# Unknown learning rate.


@pytest.mark.parametrize(
    "distance",
    [
        distances.cosine,
        IG(tensors="top2").distance,
        GI(cost="cosine").distance,
    ],
)
def test_without_the_learning_rate_directions_can_still_be_matched(distance):
    images = draw(B, *SHAPE, seed=1)
    known, unknown = (observe(make_victim(), SCHEDULES[0], know_lr=told) for told in (True, False))
    costs = [cost(observation, images, distance=distance, match="aga") for observation in (known, unknown)]
    torch.testing.assert_close(*costs)


@pytest.mark.parametrize("attack", [DLG(), GI()], ids=lambda attack: attack.name)
def test_a_distance_that_needs_the_scale_is_refused_without_the_learning_rate(attack):
    with pytest.raises(InputError, match="--know-lr true") as refusal:
        attack.check(observe(make_victim(), SCHEDULES[0], know_lr=False))
    assert "\n" not in str(refusal.value)
    attack.check(observe(make_victim(), SCHEDULES[0]))


def test_training_cannot_be_repeated_without_the_learning_rate():
    unknown = observe(make_victim(), SCHEDULES[0], know_lr=False)
    with pytest.raises(InputError, match="--match aga") as refusal:
        IG(match="fa").check(unknown)
    assert "\n" not in str(refusal.value)
    IG(match="aga").check(unknown)


def test_a_closed_form_takes_one_local_step_and_no_more():
    attack, observation = RGAP(), observe(make_victim(), SCHEDULES[0])
    check_local_training(attack, observation, LocalTraining(lr=0.1))
    with pytest.raises(InputError, match="a single gradient") as refusal:
        check_local_training(attack, observation, SCHEDULES[0])
    assert "\n" not in str(refusal.value)


def test_a_closed_form_of_lengths_needs_to_know_the_learning_rate():
    model = build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 1, bias=False)), seed=0).double()
    images, labels = torch.rand(1, 3, 8, 8, dtype=torch.float64), torch.tensor([1])
    for decay, message in ((0, "rgap solves for the length"), (0.01, "without the learning rate weight decay")):
        options = {"lr": 0.1, "optimizer": f"sgd:0:{decay}", "know_lr": False}
        with pytest.raises(InputError, match=f"{message}.*; run with --know-lr true"):
            gibench.attack("rgap", gibench.capture(model, images, labels, **options))


def test_the_observation_tells_how_clients_trained_but_nothing_about_images():
    local = SCHEDULES[2]
    observation = observe(make_victim(), local)
    told = {field.name: getattr(local, field.name) for field in fields(local)}
    assert all(isinstance(value, int | float) for value in (told | vars(told.pop("optimizer"))).values())
    assert torch.equal(observation.knowledge.labels, torch.tensor([0, 2, 2, 4]))  # no more than a multiset
    of = objective(observation)
    assert not holds(reachable(observation, of), PIXELS, observation.victim)
    of.leak = [PIXELS * 1]  # the walk must find this
    assert holds(reachable(observation, of), PIXELS, observation.victim)


# Budget.


@pytest.mark.parametrize(("match", "gradients"), [("aga", [1, 1, 1]), ("fa", [6, 4, 8])])
def test_every_victim_gradient_of_every_client_and_step_is_counted(match, gradients, monkeypatch):
    taken, loss = [], Victim.loss
    monkeypatch.setattr(Victim, "loss", lambda *given: taken.append(1) or loss(*given))
    for local, expected in zip(SCHEDULES, gradients, strict=True):
        of = objective(observe(make_victim(), local), vectorized=False, match=match)
        taken.clear()
        of.cost(draw(2, B, *SHAPE), LABELS.expand(2, -1))
        assert of.gradients == expected == len(taken) / 2


# Rounds.


@both_ways
def test_the_training_of_every_round_is_repeated_separately(vectorized):
    local, models = SCHEDULES[0], [build(Normed, seed=seed).double() for seed in (0, 1)]
    preprocessing = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
    together = Victim(Rounds(models), **preprocessing)
    apart = [observe(Victim(model, **preprocessing), local) for model in models]
    observation = observe(together, local)
    for part, alone in zip(by_round(together, observation.update), apart, strict=True):
        torch.testing.assert_close(part, alone.update)
    assert objective(observation).gradients == 2 * 6
    images = draw(B, *SHAPE, seed=1)
    for match in ("aga", "fa"):
        total = cost(observation, images, match=match, vectorized=vectorized)
        torch.testing.assert_close(total, sum(cost(alone, images, match=match) for alone in apart))
