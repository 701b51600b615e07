"""GradInversion against a plain loop, its terms, and the consensus of its restarts."""

import copy

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import cosine_similarity, cross_entropy

from attacks.engine.consensus import mean_consensus, registered_consensus
from attacks.engine.schedules import warmup_cosine
from attacks.gi import GI
from tests.attacks.normed import Normed
from victims.seeds import seed_of

STEPS, RESTARTS = 9, 3
EVERY = {"group_from": 3, "refresh": 2}


def norms(gradient, received):
    return sum(torch.linalg.vector_norm(a - b) for a, b in zip(gradient, received, strict=True))


def one_cosine(gradient, received):
    return 1 - cosine_similarity(
        *(torch.cat([t.flatten() for t in tensors]) for tensors in (gradient, received)), dim=0
    )


def mean_of_squares(gradient, received):
    return sum((a - b).pow(2).sum() for a, b in zip(gradient, received, strict=True)) / len(received)


def falling(step, steps):
    """As torch's MultiStepLR with milestones at 3/8, 5/8 and 7/8."""
    return 0.1 ** sum(step >= int(steps * k / 8) for k in (3, 5, 7))


def plain(
    observation,
    statistics,
    *,
    measure=norms,
    rate_at=warmup_cosine,
    scale=1e-3,
    l2=1e-6,
    bn=0.1,
    first=10,
    group=0.01,
    noise=0.2,
):
    """Every seed's lowest cost and its image, by the paper's equations 1 to 12; all seeds step together."""
    victim, y = observation.victim, observation.knowledge.labels
    model = copy.deepcopy(victim.model).train().requires_grad_(True)
    low, high = -victim.mean / victim.std, (1 - victim.mean) / victim.std
    xs = [
        torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(seed_of(0, "t", r))).double()
        for r in range(RESTARTS)
    ]
    adams = [torch.optim.Adam([x.requires_grad_()], lr=0.1) for x in xs]
    best, agreed = [(np.inf, None)] * RESTARTS, None
    for step in range(STEPS):
        rate = 0.1 * rate_at(step, STEPS)
        for r, x in enumerate(xs):
            inputs, layers = {}, {n: m for n, m in model.named_modules() if n in statistics}
            hooks = [
                m.register_forward_pre_hook(lambda _, args, name=n, into=inputs: into.update({name: args[0]}))
                for n, m in layers.items()
            ]
            loss = cross_entropy(model(x), y)
            g = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
            [hook.remove() for hook in hooks]
            cost = measure(g, list(observation.update.values()))
            if cost.item() < best[r][0]:
                best[r] = cost.item(), x.detach().clone()
            tv = (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
            objective = scale * cost + 1e-4 * tv + l2 * x.norm()
            for k, (name, h) in enumerate(inputs.items()):
                mean = (h.mean((0, 2, 3)) - statistics[name][0]).norm()
                variance = (h.var((0, 2, 3), correction=0) - statistics[name][1]).norm()
                objective = objective + bn * (first if k == 0 else 1) * (mean + variance)
            if agreed is not None:
                objective = objective + group * (x - agreed).norm()
            x.grad = torch.autograd.grad(objective / scale, x)[0]
            adams[r].param_groups[0]["lr"] = rate
            adams[r].step()
            generator = torch.Generator().manual_seed(seed_of(0, "t", r, step + 1))
            x.data += rate * noise * torch.randn(3, 3, 16, 16, generator=generator)
            x.data = torch.max(torch.min(x.data, high), low)
        if step + 1 >= EVERY["group_from"] and (step + 1 - EVERY["group_from"]) % EVERY["refresh"] == 0:
            agreed = sum(x.detach() for x in xs) / RESTARTS
    return min(best, key=lambda found: found[0])


@pytest.mark.parametrize("bn", ["running", "recovered", "exact"])
def test_is_the_papers_objective(bn, capture):
    task = capture(size=16, rate=None, model=Normed, training=True, dtype=torch.float64, bn=bn)
    observation = task.observation
    cost, image = plain(observation, observation.knowledge.statistics)
    result = GI(steps_x=STEPS, restarts=RESTARTS, **EVERY).run([observation])
    assert result.cost.item() == pytest.approx(cost, rel=1e-6)
    torch.testing.assert_close(result.images[0], image, rtol=0, atol=2e-3)  # Adam's first steps enlarge rounding


@pytest.mark.parametrize(
    ("preset", "bn", "published"),
    [
        ("gias", "exact", {"measure": one_cosine, "l2": 1e-4 / 16**2, "bn": 1e-4, "group": 1e-4 / 16**2}),
        ("gifd", "none", {"measure": mean_of_squares, "l2": 1e-6 / 16**2, "bn": 0.0, "group": 0.01 / 16**2}),
    ],
)
def test_is_the_objective_of_those_who_ran_it(preset, bn, published, capture):
    """As baselines of GIAS and GIFD: no noise, a rate that falls in steps, norms divided by the image's area."""
    task = capture(size=16, rate=None, model=Normed, training=True, dtype=torch.float64, bn=bn)
    statistics = task.observation.knowledge.statistics or {}
    cost, image = plain(task.observation, statistics, scale=1.0, noise=0.0, rate_at=falling, **published)
    attack = GI(**{**GI.presets[preset], "steps_x": STEPS, "restarts": RESTARTS, **EVERY})
    result = attack.run([task.observation])
    assert result.cost.item() == pytest.approx(cost, rel=1e-6)
    torch.testing.assert_close(result.images[0], image, rtol=0, atol=2e-3)


def test_every_term_changes_the_search(capture):
    observation = capture(size=16, rate=None, model=Normed, training=True, dtype=torch.float64, bn="exact").observation

    def costs(**options):
        result = GI(**{"steps_x": 5, "group_from": 2, "restarts": 2, **options}).run([observation])
        return torch.stack([cost for _, cost in result.curve])

    reference = costs()
    for name in ("alpha_tv", "alpha_l2", "alpha_bn", "alpha_group", "noise"):
        assert not torch.equal(costs(**{name: 0.0}), reference), name
    assert torch.equal(costs(), reference)
    assert not torch.equal(costs(per_area=True), reference)


def test_group_consistency_brings_the_restarts_closer(capture):
    observation = capture(rate=None).observation

    def spread(weight):
        attack = GI(steps_x=60, alpha_group=weight, group_from=10, refresh=10, restarts=2)
        attack.begin([observation])
        for _ in range(59):
            attack.advance()
        a, b = attack.session.variables["x"]
        return (a - b).norm().item()

    assert spread(1.0) < 0.8 * spread(0.0)


@pytest.fixture
def shifted():
    """A smooth random image, and the same image shifted by two pixels up and three to the left."""
    noise = np.random.default_rng(0).standard_normal((3, 44, 44))
    picture = torch.from_numpy(gaussian_filter(noise, (0, 2, 2)))
    picture = (picture - picture.min()) / (picture.max() - picture.min())
    return torch.stack([picture[:, 6:38, 6:38], picture[:, 8:40, 9:41]])[:, None]


def test_mean_consensus_is_the_mean(shifted):
    assert torch.equal(mean_consensus(shifted), (shifted[0] + shifted[1]) / 2)


def test_registration_aligns_shifted_images(shifted):
    def blur(agreed):  # what a consensus loses of the pictures' contrast
        return 1 - agreed.std() / shifted[0].std()

    registered = registered_consensus(shifted)
    assert registered.shape == (1, 3, 32, 32)
    assert blur(registered) < 0.6 * blur(mean_consensus(shifted))
    still = shifted[:1].expand(2, -1, -1, -1, -1)
    torch.testing.assert_close(registered_consensus(still), still[0], atol=1e-3, rtol=0)
