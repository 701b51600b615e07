"""Adam against torch's class, and L-BFGS per instance against torch's own on each instance alone."""

import pytest
import torch

from attacks.engine import optimizers
from attacks.engine.optimizers import LBFGS, Adam

STEPS = 40


def rosenbrock(x, y):
    """Of the pair (x, y[0, 0]), (R, 1) and (R, 1, 1) -> (R,): curved, so that the history matters."""
    a, b = x[:, 0], y[:, 0, 0]
    return (1 - a).square() + 5 * (b - a.square()).square()


def quadratic(x, y):
    return 3 * x.square().sum(1) + 0.5 * (y - 2).square().sum((1, 2)) + (x[:, 0] * y[:, 0, 0])


@pytest.fixture
def starts():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((4, 1), (4, 1, 1)))
    return [x, y]


def move(objective, variables, lr, steps):
    """Every iterate of every variable in `steps` steps of ours, all instances together."""
    variables = [v.clone() for v in variables]
    optimizer, trail = LBFGS(variables, lr=lr), []
    for _ in range(steps):
        moving = [v.detach().requires_grad_() for v in variables]
        grads = torch.autograd.grad(objective(*moving).sum(), moving)
        for variable, g in zip(variables, grads, strict=True):
            variable.grad = g
        optimizer.step()
        trail.append([v.clone() for v in variables])
    return trail


def move_alone(objective, variables, lr, steps, history=100):
    """One call of torch's optimizer on one instance."""
    alone = [v.clone().requires_grad_() for v in variables]
    optimizer = torch.optim.LBFGS(
        alone, lr, max_iter=steps, max_eval=10 * steps, tolerance_grad=0, tolerance_change=0, history_size=history
    )

    def closure():
        optimizer.zero_grad()
        value = objective(*alone).sum()
        value.backward()
        return value

    optimizer.step(closure)
    return [v.detach() for v in alone]


@pytest.mark.parametrize("objective", [rosenbrock, quadratic])
@pytest.mark.parametrize("steps", [1, 2, 7, STEPS])
def test_every_instance_follows_torch_on_it_alone(objective, steps, starts):
    ours = move(objective, starts, 0.5, steps)[-1]
    for instance in range(4):
        theirs = move_alone(objective, [v[instance : instance + 1] for v in starts], 0.5, steps)
        for variable, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(variable[instance : instance + 1], expected, rtol=1e-9, atol=1e-12)
    if steps == STEPS:
        assert objective(*ours).max() < objective(*starts).min()  # the history did what it is for


def waves(x, y):
    return (2 * x).cos().sum(1) + 0.1 * (x[:, 0] - y[:, 0, 0]).square() + (3 * y).sin().sum((1, 2))


def test_every_instance_forgets_and_refuses_pairs_by_itself(starts, monkeypatch):
    """Under negative curvature, which instances meet at different steps, and with more steps than are remembered."""
    monkeypatch.setattr(optimizers, "HISTORY", 3)
    kept = []
    keep = LBFGS._keep

    def watched(self, s, y):
        keep(self, s, y)
        kept.append(self.kept.flatten().tolist())

    monkeypatch.setattr(LBFGS, "_keep", watched)
    ours = move(waves, starts, 0.3, 12)[-1]
    assert len(set(kept[-1])) > 1
    assert max(kept[-1]) > 3
    for instance in range(4):
        theirs = move_alone(waves, [v[instance : instance + 1] for v in starts], 0.3, 12, history=3)
        for variable, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(variable[instance : instance + 1], expected, rtol=1e-9, atol=1e-12)


def test_a_step_uphill_is_not_taken_but_remembered(starts, monkeypatch):
    """As by torch's class; only rounding makes such a direction."""
    uphill = torch.tensor([False, True, True, False])
    monkeypatch.setattr(LBFGS, "_direction", lambda self, g: torch.where(uphill[:, None], g, -g))
    variables = [v.clone() for v in starts]
    optimizer = LBFGS(variables, lr=1.0)
    for variable in variables:
        variable.grad = torch.ones_like(variable)
    optimizer.step()
    for v, start in zip(variables, starts, strict=True):
        assert torch.equal((v == start).flatten(), uphill)
    assert optimizer.moved.all()


def test_instances_do_not_mix(starts):
    x, y = starts
    together = move(rosenbrock, [x, y], 0.5, STEPS)
    worse = move(rosenbrock, [torch.cat([x[:2], x[2:] + 50]), y], 0.5, STEPS)
    for (a, b), (c, d) in zip(together, worse, strict=True):
        assert torch.equal(a[:2], c[:2])
        assert torch.equal(b[:2], d[:2])


def test_an_instance_that_becomes_nan_affects_no_other(starts):
    x, y = starts
    broken = x.clone()
    broken[1] = torch.nan
    ours, rest = move(rosenbrock, [broken, y], 0.5, STEPS)[-1], move(rosenbrock, [x, y], 0.5, STEPS)[-1]
    assert ours[0][1].isnan().all()
    for mine, other in zip(ours, rest, strict=True):
        assert torch.equal(mine[[0, 2, 3]], other[[0, 2, 3]])


def test_the_learning_rate_is_read_at_every_step(starts):
    """As a stage's schedule sets it."""
    variables = [v.clone() for v in starts]
    optimizer = LBFGS(variables, lr=1.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for variable in variables:
        variable.grad = torch.ones_like(variable)
    optimizer.step()
    assert all(torch.equal(v, start) for v, start in zip(variables, starts, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_equals_torchs_at_every_rate(starts, dtype):
    ours, theirs = ([v.to(dtype).requires_grad_() for v in starts] for _ in range(2))
    optimizer, other = Adam(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1, fused=True)
    for step in range(STEPS):
        for variables, adam in ((ours, optimizer), (theirs, other)):
            adam.param_groups[0]["lr"] = 0.1 / (1 + step)
            for v, g in zip(variables, torch.autograd.grad(rosenbrock(*variables).sum(), variables), strict=True):
                v.grad = g
            adam.step()
    assert all(torch.equal(v, other) for v, other in zip(ours, theirs, strict=True))
