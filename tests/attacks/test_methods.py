"""Each method against a plain loop written from its paper: one restart, one task, no engine."""

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.optim.lr_scheduler import MultiStepLR

from attacks.dlg import DLG, IDLG
from attacks.ig import IG
from victims.errors import InputError
from victims.seeds import seed_of

STEPS, TV = 40, 1e-2


def one_cosine(gradient, received):
    g, target = (torch.cat([t.flatten() for t in tensors]) for tensors in (gradient, received))
    return 1 - cosine_similarity(g, target, dim=0)


class Plain:
    """The victim, the received gradient and the objective, without the engine."""

    def __init__(self, observation, measure=one_cosine, tv=TV):
        self.model = observation.victim.model.requires_grad_(True)
        self.theta = list(self.model.parameters())
        self.received, self.measure, self.tv = list(observation.update.values()), measure, tv
        self.labels = observation.knowledge.labels
        self.mean, self.std = observation.victim.mean, observation.victim.std
        self.best, self.image = torch.inf, None

    def cost(self, x, loss):
        gradient = torch.autograd.grad(loss, self.theta, create_graph=True)
        masked = [g.where(sent != 0, 0) for g, sent in zip(gradient, self.received, strict=True)]  # it adapts
        cost = self.measure(masked, self.received)
        self.last = cost.item()
        if cost.item() < self.best:
            self.best, self.image = cost.item(), x.detach().clone()
        return cost

    def objective(self, x):
        cost = self.cost(x, cross_entropy(self.model(x), self.labels))
        tv = (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
        return cost + self.tv * tv

    def box(self, x):
        x.data = torch.max(torch.min(x.data, (1 - self.mean) / self.std), -self.mean / self.std)


def drawn(*shape, salt=()):
    """The start of restart 0 of the task `t`."""
    generator = torch.Generator().manual_seed(seed_of(0, "t", 0, *salt))
    return torch.randn(shape, generator=generator).double().requires_grad_()


def minimize(variables, objective, lr, steps, before=lambda: None, after=lambda step: None):
    optimizer = torch.optim.Adam(variables, lr=lr)
    scheduler = MultiStepLR(optimizer, [int(steps * k / 8) for k in (3, 5, 7)], gamma=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        objective().backward(inputs=variables)
        before()
        optimizer.step()
        scheduler.step()
        after(step)


@pytest.fixture
def observation(capture):
    return capture(dtype=torch.float64).observation


def agree(attack, plain, observation):
    result = attack.run([observation])
    assert result.cost.item() == pytest.approx(plain.best, rel=1e-5)
    torch.testing.assert_close(result.images[0], plain.image, rtol=1e-4, atol=1e-5)
    assert result.cost.item() < result.curve[0][1].item()  # it did get somewhere
    return result


def test_ig(observation):
    plain, x = Plain(observation), drawn(3, 3, 32, 32)
    minimize([x], lambda: plain.objective(x), 0.1, STEPS, lambda: x.grad.sign_(), lambda step: plain.box(x))
    agree(IG(steps=STEPS, tv=TV, restarts=1), plain, observation)


def squares(gradient, received):
    return sum(((g - sent) ** 2).sum() for g, sent in zip(gradient, received, strict=True))


def of_tensors(*numbers):
    """One cosine over the tensors of these numbers."""
    return lambda gradient, received: one_cosine(*([g[i] for i in numbers] for g in (gradient, received)))


def largest_tenth(gradient, received):
    kept = [s.abs() >= s.abs().flatten().sort().values[-max(1, s.numel() // 10)] for s in received]
    return one_cosine(*([t[k] for t, k in zip(tensors, kept, strict=True)] for tensors in (gradient, received)))


@pytest.mark.parametrize(
    ("options", "measure"),
    [
        ({"cost": "squared_l2"}, squares),
        ({"tensors": "last2"}, of_tensors(6, 7)),
        ({"tensors": "first3"}, of_tensors(0, 1, 2)),
        ({"compress": 0.9}, largest_tenth),
    ],
)
def test_ig_with_other_costs(options, measure, observation):
    plain, x = Plain(observation, measure), drawn(3, 3, 32, 32)
    minimize([x], lambda: plain.objective(x), 0.1, STEPS, lambda: x.grad.sign_(), lambda step: plain.box(x))
    agree(IG(steps=STEPS, tv=TV, restarts=1, **options), plain, observation)


def test_ig_uses_the_tensors_of_largest_norm(observation):
    order = np.argsort([-g.norm().item() for g in observation.update.values()])
    plain, x = Plain(observation, of_tensors(*order[:3])), drawn(3, 3, 32, 32)
    minimize([x], lambda: plain.objective(x), 0.1, STEPS, lambda: x.grad.sign_(), lambda step: plain.box(x))
    agree(IG(steps=STEPS, tv=TV, restarts=1, tensors="top3"), plain, observation)


def test_ig_unboxed_unsigned_with_a_median_filter(observation):
    """After steps 15 and 30; scipy's `mirror` is torch's reflect."""
    plain, x = Plain(observation), drawn(3, 3, 32, 32)

    def smooth(step):
        if (step + 1) % 15 == 0:
            x.data = torch.from_numpy(median_filter(x.detach().numpy(), size=(1, 1, 3, 3), mode="mirror"))

    minimize([x], lambda: plain.objective(x), 0.1, STEPS, after=smooth)
    agree(IG(steps=STEPS, tv=TV, restarts=1, boxed=False, signed=False, median_every=15), plain, observation)


@pytest.mark.parametrize(
    ("preset", "tv", "eta", "signed"),
    [
        ("gias", 1e-4, 0.1, False),
        ("gifd", 1e-4, 0.1, False),
        ("paper-fedavg", 1e-6, 1, True),
        ("code", 1e-4, 0.1, True),
    ],
)
def test_ig_as_it_was_run(preset, tv, eta, signed, observation):
    plain, x = Plain(observation, tv=tv), drawn(3, 3, 32, 32)
    sign = (lambda: x.grad.sign_()) if signed else (lambda: None)
    minimize([x], lambda: plain.objective(x), eta, STEPS, sign, lambda step: plain.box(x))
    agree(IG(**{**IG.presets[preset], "steps_x": STEPS, "restarts": 1}), plain, observation)


@pytest.mark.parametrize("options", [{"compress": 1.0}, {"compress": -0.1}, {"median_every": -1}, {"tensors": "some"}])
def test_ig_refuses_invalid_options(options):
    with pytest.raises(InputError, match=next(iter(options))) as refusal:
        IG(**options)
    assert "\n" not in str(refusal.value)


def one_call_of_lbfgs(variables, cost):
    """STEPS iterations in one call of torch's optimizer, where DLG's code calls it again every 20."""
    optimizer = torch.optim.LBFGS(variables, lr=1, max_iter=STEPS, max_eval=1000, tolerance_grad=0, tolerance_change=0)

    def closure():
        optimizer.zero_grad()
        value = cost()
        value.backward(inputs=variables)
        return value

    optimizer.step(closure)


@pytest.mark.parametrize("rate", [None, 0.5])
def test_dlg(rate, capture):
    observation = capture(rate=rate, dtype=torch.float64, give_labels=False).observation
    plain, x, y = Plain(observation, squares), drawn(3, 3, 32, 32), drawn(3, 10, salt=("labels",))
    seen = {}

    def cost():
        before, probabilities = plain.best, y.softmax(-1)
        value = plain.cost(x, -(probabilities * plain.model(x).log_softmax(-1)).sum(1).mean())
        if plain.best < before:
            seen["labels"] = probabilities.detach()
        return value

    one_call_of_lbfgs([x, y], cost)
    result = agree(DLG(steps=STEPS, restarts=1), plain, observation)
    torch.testing.assert_close(result.labels[0], seen["labels"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rate", [None, 0.5])
def test_idlg(rate, capture):
    task = capture((50,), rate=rate, dtype=torch.float64, give_labels=False)
    plain, x = Plain(task.observation, squares), drawn(1, 3, 32, 32)
    one_call_of_lbfgs([x], lambda: plain.cost(x, -plain.model(x).log_softmax(-1)[0, task.labels[0]]))
    result = agree(IDLG(steps=STEPS, restarts=1), plain, task.observation)
    assert torch.equal(result.labels[0], task.labels)


def test_idlg_gives_every_task_its_own_label(capture):
    tasks = [capture((index,), task=str(index)) for index in (3, 50, 90)]
    truth = torch.stack([task.labels for task in tasks])
    assert len(set(truth.flatten().tolist())) > 1
    result = IDLG(steps=2, restarts=2).run([task.observation for task in tasks])
    assert torch.equal(result.labels, truth)
