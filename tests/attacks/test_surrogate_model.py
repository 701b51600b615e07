"""`sme`: its cost against a model with the weights in between, its search against a plain loop."""

import copy

import pytest
import torch
from test_federated import (
    LABELS,
    PIXELS,
    SCHEDULES,
    SHAPE,
    B,
    LayerNormed,
    both_ways,
    draw,
    each_mode,
    make_victim,
    observe,
)
from torch import nn
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy

from attacks.base import Attack
from attacks.dlg import DLG
from attacks.engine import distances, probe
from attacks.engine.gradients import GradientPaths
from attacks.engine.objective import Objective
from attacks.engine.probe import Probe, vectorizes
from attacks.engine.requirements import check_local_training
from attacks.engine.stage import Stage
from attacks.engine.surrogate_model import ALPHA, START, with_alpha
from attacks.ggl import GGL
from attacks.gias import GIAS
from attacks.gifd import GIFD
from attacks.ig import IG
from attacks.rgap import RGAP
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import Client, capture_task
from defenses.sparsification import Sparsification
from victims.client import LocalTraining
from victims.data.photos import Photos
from victims.errors import InputError
from victims.models.lenet import LeNet
from victims.modules import build
from victims.rounds import Rounds
from victims.victim import Victim

LOCAL = SCHEDULES[0]


def objective(observation, distance=distances.cosine, vectorized=True, own_weights=True):
    paths = GradientPaths(observation.victim, vectorized=vectorized, own_weights=own_weights)
    return Objective([observation], distance, paths, restarts=2)


# The cost.


def in_between(observation, alpha, training):
    """A copy of the net, with the weights (1 - alpha) theta_0 + alpha theta_T."""
    net = copy.deepcopy(observation.victim.model).train(training).requires_grad_(True)
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_((1 - alpha) * p + alpha * (p - observation.update[name]))
    return net


def cosine_by_hand(net, x, y, update):
    g = torch.autograd.grad(cross_entropy(net(x), y), list(net.parameters()), create_graph=True)
    dot = sum((a * update[name]).sum() for (name, _), a in zip(net.named_parameters(), g, strict=True))
    lengths = [sum(a.square().sum() for a in each).sqrt() for each in (g, update.values())]
    return 1 - dot / (lengths[0] * lengths[1])


@both_ways
@each_mode
@pytest.mark.parametrize("defense", [None, Sparsification(0.5)], ids=["none", "sparse"])
def test_the_gradient_is_that_of_a_model_between_the_weights_before_and_after(defense, training, vectorized):
    observation = observe(make_victim(training), LOCAL, defense=defense)
    images, alpha = draw(2, B, *SHAPE, seed=1), torch.tensor([0.25, 1.0], dtype=torch.float64)
    found = objective(observation, vectorized=vectorized).cost(images, LABELS.expand(2, -1), alpha)
    received = {name: g[None] for name, g in observation.gradient().items()}
    estimate = observation.knowledge.estimate
    for k in range(2):
        net = in_between(observation, alpha[k], training)
        if estimate:
            g = torch.autograd.grad(cross_entropy(net(images[k]), LABELS), list(net.parameters()))
            dummy = {name: each[None] for (name, _), each in zip(net.named_parameters(), g, strict=True)}
            expected = distances.cosine(estimate(received, observation.victim)(dummy), received)[0]
        else:
            expected = cosine_by_hand(net, images[k], LABELS, observation.update)
        torch.testing.assert_close(found[k], expected.detach(), rtol=1e-9, atol=1e-12)


@both_ways
@pytest.mark.parametrize("distance", [distances.cosine, distances.squared_l2])
def test_alpha_of_zero_is_aga(distance, vectorized):
    observation, images = observe(make_victim(), LOCAL), draw(2, B, *SHAPE, seed=1)
    at_start = objective(observation, distance, vectorized).cost(images, LABELS.expand(2, -1), images.new_zeros(2))
    aga = objective(observation, distance, vectorized, own_weights=False).cost(images, LABELS.expand(2, -1))
    torch.testing.assert_close(at_start, aga, rtol=1e-12, atol=1e-15)


@both_ways
@each_mode
@pytest.mark.parametrize("distance", [distances.cosine, distances.squared_l2])
def test_gradients_in_alpha_and_images_match_finite_differences(distance, training, vectorized):
    of = objective(observe(make_victim(training), LOCAL), distance, vectorized)
    rest, patch = draw(2, B, *SHAPE, seed=1), draw(2, B, 1, 1, 1, seed=2).requires_grad_()
    alpha = torch.tensor([0.3, 0.8], dtype=torch.float64, requires_grad=True)

    def cost(patch, alpha):
        return of.cost(rest + nn.functional.pad(patch, (3, 4, 2, 5, 1, 1)), LABELS.expand(2, -1), alpha)

    assert gradcheck(cost, (patch, alpha), eps=1e-6, atol=1e-7)


def test_between_the_weights_the_truth_costs_less_than_before_them():
    """Two steps on one batch: of all points in between, the cosine is best near the middle."""
    observation = observe(make_victim(), LocalTraining(epochs=2, lr=0.3))
    truth = observation.victim.normalize(PIXELS).expand(2, -1, -1, -1, -1)
    start, middle = objective(observation).cost(truth, LABELS.expand(2, -1), torch.tensor([0, 0.25]).double())
    assert middle < start / 2


def test_of_several_rounds_the_costs_add_up():
    normal = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
    models = [make_victim(seed=seed).model.requires_grad_(True) for seed in (0, 1)]
    alone = [observe(Victim(model, **normal), LOCAL) for model in models]
    together = observe(Victim(Rounds(models), **normal), LOCAL)
    images, alpha = draw(2, B, *SHAPE, seed=1), torch.tensor([0.3, 0.8]).double()
    total, *parts = (objective(o).cost(images, LABELS.expand(2, -1), alpha) for o in (together, *alone))
    torch.testing.assert_close(total, sum(parts))


# The search.


@pytest.mark.parametrize("signed", [True, False])
def test_the_search_is_a_plain_loop_over_images_and_alpha(signed):
    """As the authors' code writes it, with torch's Adam and scheduler."""
    observation, steps = observe(make_victim(), LOCAL), 16
    attack = IG(steps=steps, restarts=1, match="sme", signed=signed, tv=0.0)
    attack.begin([observation])
    victim, y = observation.victim, observation.knowledge.labels
    x = attack.noise()[0].clone().requires_grad_()
    alpha = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    of_x, of_alpha = torch.optim.Adam([x], lr=0.1), torch.optim.Adam([alpha], lr=1e-3)
    schedules = [torch.optim.lr_scheduler.MultiStepLR(o, [6, 10, 14], gamma=0.1) for o in (of_x, of_alpha)]
    theta_0 = {name: p.detach() for name, p in victim.model.named_parameters()}
    for step in range(steps):
        w = {n: ((1 - alpha) * p + alpha * (p - observation.update[n])) for n, p in theta_0.items()}
        buffers = dict(victim.model.named_buffers())
        loss = cross_entropy(torch.func.functional_call(victim.model, {**buffers, **w}, (x,)), y)
        g = dict(zip(w, torch.autograd.grad(loss, list(w.values()), create_graph=True), strict=True))
        dot = sum((g[n] * observation.update[n]).sum() for n in g)
        lengths = [sum(a.square().sum() for a in each.values()).sqrt() for each in (g, observation.update)]
        x.grad, alpha.grad = torch.autograd.grad(1 - dot / (lengths[0] * lengths[1]), (x, alpha))
        if signed:
            x.grad.sign_(), alpha.grad.sign_()
        for each in (of_x, of_alpha, *schedules):
            each.step()
        with torch.no_grad():
            x.clamp_(victim.normalize(0), victim.normalize(1))
            alpha.clamp_(0, 1)
        attack.advance()
        if step < steps - 1:  # the result of the last step is not kept
            torch.testing.assert_close(attack.session.variables["x"][0], x.detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(attack.session.alpha, alpha[None].detach(), rtol=0, atol=1e-9)
    assert abs(alpha.item() - 0.5) > 1e-4


def test_alpha_stays_between_zero_and_one():
    attack = IG(steps=3, restarts=2, match="sme")
    attack.begin([observe(make_victim(), LOCAL)])
    attack.session.variables[ALPHA].copy_(torch.tensor([1.2, -0.1]))
    attack.advance()
    assert attack.session.variables[ALPHA].tolist() == [1, 0]


def test_the_own_optimizer_gets_its_own_variables_and_rate():
    attack = DLG(steps=2, restarts=2, match="sme")  # L-BFGS
    attack.begin([observe(make_victim(), LOCAL)])
    attack.advance()
    rates = [group["lr"] for group in attack.session._optimizer.param_groups]
    assert rates == [1.0, 1e-3]
    moved = attack.session.variables[ALPHA] - START
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 1e-3), rtol=1e-3, atol=0)  # Adam's first step


@pytest.fixture
def trained_update():
    """Captures tasks after local training on a LeNet of 16 px."""

    def take(indices=(3, 50), task="t", victim=None, local=LOCAL, dtype=torch.float64):
        data = Photos(split="tune", size=16)
        if victim is None:
            net = build(LeNet, image_shape=(3, 16, 16), num_classes=10, seed=0).to(dtype)
            victim = Victim(net, mean=data.mean, std=data.std)
        return capture_task(victim, data, Batch(task, indices), Client(local=local)).observation

    return take


METHODS = [IG, GIAS, GIFD, GGL, DLG]


@pytest.fixture
def make(small_prior):
    def make(method, **options):
        if "prior" in method.needs:
            options["prior"] = small_prior.double()
        if method is GGL:
            options["population"] = 4
        return method(**{"steps": 6, "restarts": 1, "match": "sme", **options})

    return make


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_paths_chunks_groups_and_restarts_agree(method, make, trained_update, monkeypatch):
    first = trained_update()
    tasks = [first, trained_update((8, 30), task="u", victim=first.victim)]

    def outcome(tasks=tasks, **options):
        attack = make(method, **{"restarts": 2, **options})
        result = attack.run(tasks)
        return result.images, torch.stack([cost for _, cost in result.curve]), result.gradient_path

    images, curve, path = outcome(chunk=4)
    assert path == "vectorized"
    others = [outcome(chunk=3), outcome(chunk=1)]
    monkeypatch.setattr(probe, "vectorizes", lambda *_: False)
    others.append(outcome(chunk=4))
    assert [path for *_, path in others] == ["vectorized, plain", "plain", "plain"]
    for other, other_curve, _ in others:
        torch.testing.assert_close(other_curve, curve, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(other, images, rtol=1e-6, atol=1e-8)
    for k, task in enumerate(tasks):
        alone, _, _ = outcome([task])
        torch.testing.assert_close(alone[0], images[k], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_it_costs_one_gradient_per_step_as_aga(method, make, trained_update):
    task = trained_update()
    sme, aga = (make(method, match=match).run([task]).gradient_evaluations for match in ("sme", "aga"))
    assert sme == aga


def test_alpha_goes_on_from_stage_to_stage_with_the_start_that_continues(make, trained_update):
    attack = make(GIAS, restarts=3, keep="best")
    attack.begin([trained_update()])
    seen = []
    while attack.session.stage.name == "z":
        seen.append(attack.session.variables[ALPHA].clone())
        attack.advance()
    costs = torch.stack([cost[0] for _, cost in attack.session.costs])  # (steps, restarts)
    step, restart = divmod(costs.argmin().item(), 3)
    assert step > 0
    torch.testing.assert_close(attack.session.variables[ALPHA], seen[step][[restart]])
    assert attack.session.alpha.shape == (1,)


def test_a_gradient_free_search_leaves_alpha_as_it_is(make, trained_update):
    attack = make(GGL)
    attack.run([trained_update()])
    assert attack.session.alpha.tolist() == [START]


def test_a_stage_with_an_objective_of_its_own_leaves_alpha_as_it_is():
    class BeforeSME(Attack):
        def __init__(self, **common):
            super().__init__({"a": 3, "x": 3}, **common)

        def search(self):
            x = self.noise()
            found = yield Stage(
                name="a", variables={"x": x}, lr=0.1, objective=lambda v: v["x"].square().flatten(1).sum(1)
            )
            starts.append(self.session.alpha.tolist())
            yield Stage(name="x", variables={"x": found["x"]}, lr=0.1)

    starts = []
    attack = BeforeSME(restarts=1, match="sme")
    attack.run([observe(make_victim(), LOCAL)])
    assert starts == [[START]]
    assert attack.session.alpha.item() != START


def test_the_own_projection_gets_the_own_variables_alone():
    seen, x = [], torch.zeros(2, 3)
    own = Stage(name="x", variables={"x": x}, decode=dict, lr=1.0, project=lambda v, step: seen.append((v, step)))
    with_alpha(own, torch.zeros(2)).project({"x": x, ALPHA: torch.zeros(2)}, 7)
    assert seen == [({"x": x}, 7)]


def test_after_one_gradient_it_has_no_effect():
    """FedSGD moves no weights."""
    observation = observe(make_victim(), None)
    one, other = (IG(steps=4, restarts=2, match=match).run([observation]) for match in ("aga", "sme"))
    assert torch.equal(one.images, other.images)
    assert one.gradient_path == other.gradient_path


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_folder")
def test_a_compiled_search_is_the_same(trained_update):
    task = trained_update(dtype=torch.float32)
    eager, compiled = (IG(steps=6, restarts=1, match="sme", compile=c).run([task]) for c in ("off", "on"))
    assert compiled.gradient_path == "plain+compiled"
    costs = [torch.stack([cost for _, cost in found.curve]) for found in (eager, compiled)]
    torch.testing.assert_close(*costs, rtol=1e-3, atol=1e-5)


# What it needs.


def test_it_needs_no_learning_rate_for_directions_and_is_refused_for_lengths():
    unknown, known = (observe(make_victim(), LOCAL, know_lr=told) for told in (False, True))
    costs = [IG(steps=3, restarts=1, match="sme").run([o]).cost for o in (unknown, known)]
    torch.testing.assert_close(*costs)
    with pytest.raises(InputError, match="--know-lr true"):
        DLG(match="sme").check(unknown)


def test_a_closed_form_refuses_it():
    with pytest.raises(InputError, match="--match aga") as refusal:
        check_local_training(RGAP(match="sme"), observe(make_victim(), LOCAL), LocalTraining(lr=0.1))
    assert "\n" not in str(refusal.value)


def test_probing_goes_through_weights_of_every_instance(monkeypatch):
    wrong = Victim(build(LayerNormed, seed=0), mean=(0.5,) * 3, std=(0.2,) * 3)
    victim, given = make_victim(training=True), []
    real = probe.victim_gradients

    def seen(*args, theta=None, **options):
        given.append(theta)
        return real(*args, theta=theta, **options)

    monkeypatch.setattr(probe, "victim_gradients", seen)
    assert vectorizes(Probe(victim, SHAPE, B, None, True))
    plain, fast = given
    for name, p in fast.items():
        assert p.requires_grad
        assert plain[name].requires_grad
        assert not torch.equal(p[0], p[1]) or not p.any()
        torch.testing.assert_close(plain[name], p[-1:])
    with pytest.warns(UserWarning, match="disagree"):
        assert not vectorizes(Probe(wrong, SHAPE, B, None, True))
