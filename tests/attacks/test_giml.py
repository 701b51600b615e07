"""GIML against a plain algorithm 2, the prior it learns, and its state."""

import itertools
import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from attacks.engine.regularizers import squared_variation, total_variation
from attacks.gias_parts import GIz
from attacks.giml import GIML
from benchmark.check.reach import holds, reachable
from priors.dcgan import DCGAN
from victims.errors import InputError
from victims.models.lenet import LeNet
from victims.modules import build
from victims.seeds import seed_of
from victims.victim import Victim

BATCHES = [(3, 50), (8, 30), (77, 12), (60, 41), (20, 21), (90, 33)]
STEPS = 8  # the schedule's milestones fall on 3, 5 and 7
MILESTONES = [3, 5, 7]


def generator(dtype=torch.float32):
    return build(DCGAN, seed=3, nz=8, ngf=4).to(dtype)


@pytest.fixture
def tasks(capture):
    """Updates of two rounds with a theta each, the clients' defense being sparsification."""

    def tasks(dtype=torch.float32, size=2):
        first = capture(dtype=dtype).observation.victim
        model = build(LeNet, image_shape=(3, 32, 32), num_classes=10, seed=1).to(dtype)
        second = Victim(model, mean=tuple(first.mean.flatten().tolist()), std=tuple(first.std.flatten().tolist()))
        rounds = [first, first, second]
        return [
            capture(batch[:size], task=f"t{i}", victim=rounds[i % 3], dtype=dtype) for i, batch in enumerate(BATCHES)
        ]

    return tasks


def adam(objective, variables, lr):
    """STEPS of torch's Adam, whose learning rate drops to a tenth at every milestone; the last value."""
    optimizer = torch.optim.Adam(variables, lr=lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, MILESTONES, 0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        value = objective()
        value.backward()
        optimizer.step()
        schedule.step()
    return value.item()


def matching(images, task, *, tv, squares):
    """c(x; theta_i, g_i) under sparsification, and the variation, by plain autograd."""
    theta, received = task.victim, list(task.update.values())
    model, x = deepcopy(theta.model).requires_grad_(True), (images - theta.mean) / theta.std
    loss = cross_entropy(model(x), task.knowledge.labels)
    dummy = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    sent = torch.cat([(d * (r != 0)).flatten() for d, r in zip(dummy, received, strict=True)])
    dx, dy = x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]
    variation = (dx**2).sum() + (dy**2).sum() if squares else dx.abs().mean() + dy.abs().mean()
    return 1 - cosine_similarity(sent, torch.cat([r.flatten() for r in received]), dim=0) + tv * variation


def both_searches(G, t, tasks, *, lam, **options):
    """Lines 4 to 10: w', and the last value of line 9."""
    w_ = deepcopy(G)

    def c(z, task):
        return matching(w_({"z": z}), task, **options)

    zs = []
    for task in tasks:
        draws = torch.Generator().manual_seed(seed_of(0, "z", t, task.task))
        z = torch.randn(task.batch_size, 8, generator=draws).double().requires_grad_()
        adam(lambda z=z, task=task: c(z, task) + lam * sum((z_j**2).sum().sqrt() for z_j in z), [z], 3e-2)
        zs.append(z.detach())
    value = adam(lambda: sum(c(z, task) for z, task in zip(zs, tasks, strict=True)), list(w_.parameters()), 1e-3)
    return [p.detach() for p in w_.parameters()], value


@pytest.mark.parametrize(
    ("meta", "beta", "variation", "tv"), [("reptile", 0.3, "sum_squares", 1e-3), ("adam", 1e-2, "mean_abs", 0.5)]
)
def test_two_steps_equal_a_plain_algorithm_2(meta, beta, variation, tv, tasks):
    observations = [task.observation for task in tasks(torch.float64)]
    giml = GIML(
        generator(torch.float64), N=2, steps_z=STEPS, eta_z=3e-2, lam=1e-3, tau=STEPS, alpha=1e-3, tv=tv,
        variation=variation, meta=meta, beta=beta,
    )  # fmt: skip
    G = generator(torch.float64).eval()
    w = list(G.parameters())
    outer = torch.optim.Adam(w, lr=beta)
    for t, of_step in enumerate((observations[1:3], observations[3:5])):
        w_, value = both_searches(G, t, of_step, lam=1e-3, tv=tv, squares=variation == "sum_squares")
        if meta == "reptile":
            for w_k, w_k_ in zip(w, w_, strict=True):
                w_k.data = (1 - beta) * w_k.data + beta * w_k_
        else:
            outer.zero_grad()  # on half of |w - w'|^2: Adam takes no notice of a factor, but for its epsilon
            sum(((w_k - w_k_) ** 2).sum() / 2 for w_k, w_k_ in zip(w, w_, strict=True)).backward()
            outer.step()
        assert giml.step(of_step) == pytest.approx(value / 2, rel=1e-6)
        for (name, found), w_k in zip(giml.G.named_parameters(), w, strict=True):
            torch.testing.assert_close(found, w_k, rtol=0, atol=1e-5 * beta, msg=name)


@pytest.mark.parametrize("meta", ["reptile", "adam"])
def test_a_restored_learner_continues_bit_for_bit(meta, tasks):
    observations = [task.observation for task in tasks(size=1)]
    options = {"N": 2, "steps_z": 2, "tau": 2, "meta": meta, "beta": 0.01}
    undisturbed, first, second = (GIML(generator(), **options) for _ in range(3))

    def go_on(giml, steps):
        return [giml.step([observations[i] for i in giml.sample(len(observations))]) for _ in range(steps)]

    costs = go_on(undisturbed, 3)
    before = go_on(first, 2)
    second.load_state_dict(deepcopy(first.state_dict()))
    assert before + go_on(second, 1) == costs
    for name, tensor in undisturbed.G.state_dict().items():
        assert torch.equal(second.G.state_dict()[name], tensor), name


def test_batch_norm_does_not_change(tasks):
    giml = GIML(generator().train(), N=2, steps_z=2, tau=2)
    giml.step([task.observation for task in tasks()[:2]])
    assert not any(module.training for module in giml.G.modules())
    for name, buffer in giml.G.named_buffers():
        assert (buffer == (1 if name.endswith("running_var") else 0)).all(), name


@pytest.mark.parametrize(("tasks", "N"), [(12, 4), (10, 4), (3, 4), (1, 1)])
def test_every_task_is_used_once_before_any_is_used_again(tasks, N):
    giml = GIML(generator(), N=N)
    taken = []
    for giml.t in range(3 * tasks):
        taken += giml.sample(tasks)
    passes = [taken[start : start + tasks] for start in range(0, len(taken), tasks)]
    assert all(sorted(one) == list(range(tasks)) for one in passes)
    assert tasks == 1 or len({tuple(one) for one in passes}) > 1


def test_the_learned_prior_helps_with_other_updates(capture):
    """Latents alone match updates that were not in S at less cost than with the generator it started from."""
    observations = [capture((i,), task=f"t{i}", rate=None).observation for i in range(0, 96, 4)]
    held_out = observations[::4]
    seen = [observation for observation in observations if observation not in held_out]
    giml = GIML(build(DCGAN, seed=3, nz=8, ngf=8), N=4, steps_z=4, eta_z=3e-2, tau=6, alpha=1e-2, beta=0.5)
    untrained = deepcopy(giml.G)
    for _ in range(9):
        giml.step([seen[i] for i in giml.sample(len(seen))])

    def cost(G):
        return GIz(prior=G.requires_grad_(False), steps_z=15, restarts=1).run(held_out).cost.mean()

    assert cost(giml.G) < 0.9 * cost(untrained)


def test_no_private_image_is_reachable(tasks):
    private = tasks()[:2]
    giml, observations = GIML(generator(), N=2, steps_z=1, tau=1), [task.observation for task in private]
    giml.step(observations)
    for task in private:
        assert not holds(reachable(giml, *observations), task.images, task.observation.victim)
        assert holds(reachable(giml, task), task.images, task.observation.victim)  # the walk finds what is there


@pytest.mark.parametrize("option", ["N", "steps_z", "tau"])
def test_counts_below_one_are_refused(option):
    with pytest.raises(InputError, match=option) as error:
        GIML(generator(), **{option: 0})
    assert "\n" not in str(error.value)


def test_presets_fit_the_constructor():
    variations = {name: GIML(generator(), **preset).variation for name, preset in GIML.presets.items()}
    assert variations["paper"] is variations["code"] is total_variation
    assert variations["paper-literal"] is squared_variation


def test_the_literal_preset_weighs_every_pixel_against_each_of_its_neighbors():
    """Eq. 4 with lambda 1e-4: a pair of neighbors comes twice."""
    x = torch.rand(1, 1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for i, j in itertools.product(range(4), range(5)):
        for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if 0 <= a < 4 and 0 <= b < 5:
                expected += float((x[..., i, j] - x[..., a, b]).square().sum())
    giml = GIML(generator(), **GIML.presets["paper-literal"])
    assert float(giml.tv * giml.variation(x)) == pytest.approx(1e-4 * expected, rel=1e-5)


def test_a_task_without_labels_is_refused(tasks):
    task = tasks()[0].observation
    unlabeled = replace(task, knowledge=replace(task.knowledge, labels=None))
    with pytest.raises(InputError, match="labels"):
        GIML(generator()).step([unlabeled])


@pytest.mark.parametrize("broken", [0.0, math.nan])
def test_an_update_that_cannot_be_matched_changes_nothing(broken, tasks):
    fine, bad = (task.observation for task in tasks()[:2])
    for tensor in bad.update.values():
        tensor.mul_(broken)
    giml = GIML(generator(), N=2, steps_z=2, tau=2)
    with pytest.raises(InputError, match="cannot be matched") as error:
        giml.step([fine, bad])
    assert "\n" not in str(error.value)
    assert all(torch.equal(a, b) for a, b in zip(giml.G.parameters(), generator().parameters(), strict=True))
    assert giml.t == 0
