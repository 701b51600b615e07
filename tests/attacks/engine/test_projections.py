"""Projections against a general solver, and against loops over images."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from attacks.engine.projections import l1_ball, sphere, sphere_norm


def quadratic_program(v, radius):
    """min |p - v|^2 with |p|_1 <= radius, as the smooth problem in p = a - b, a and b not below 0, by SLSQP."""
    size = len(v)

    def split(ab):
        return ab[:size] - ab[size:]

    found = minimize(
        lambda ab: np.sum((split(ab) - v) ** 2),
        np.full(2 * size, radius / (4 * size)),
        jac=lambda ab: np.concatenate([2 * (split(ab) - v), -2 * (split(ab) - v)]),
        bounds=[(0, None)] * (2 * size),
        constraints={"type": "ineq", "fun": lambda ab: radius - ab.sum(), "jac": lambda ab: -np.ones(2 * size)},
        method="SLSQP",
        options={"ftol": 1e-9, "maxiter": 500},
    )
    assert found.success
    return split(found.x)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [1e-3, 0.1, 0.5, 0.99, 1.5])
def test_l1_ball_is_the_nearest_point(seed, share):
    v = torch.randn(3, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    radius = share * v.abs().sum(1)
    projected = l1_ball(v, radius)
    assert (projected.abs().sum(1) <= radius * (1 + 1e-9)).all()
    for row, r, p in zip(v, radius, projected, strict=True):
        nearest = quadratic_program(row.numpy(), r.item())
        np.testing.assert_allclose(p.numpy(), nearest, atol=1e-3)
        assert (p - row).norm() <= np.linalg.norm(nearest - row.numpy()) * (1 + 1e-9)
        if share < 1:  # nearest: no corner +-r e_i of the ball lies further along what is left to go
            torch.testing.assert_close(r * (row - p).abs().max(), (row - p) @ p)


def test_l1_ball_with_ties_and_zeros():
    v = torch.tensor([[1.0, 1.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(l1_ball(v, torch.tensor([1.5, 1.0])), torch.tensor([[0.5, 0.5, -0.5, 0.0], [0.0] * 4]))


@pytest.mark.parametrize("shape", [(7,), (4, 7), (1, 5, 5)], ids=["latent", "layers", "maps"])
def test_the_retraction_acts_on_every_image_separately(shape):
    """Per latent, per layer of W+, per noise map; images do not share a norm."""
    start, moved = (3 * torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    back = sphere(moved, sphere_norm(start))
    for r in range(2):
        for b in range(3):
            parts = zip(start[r, b], moved[r, b], back[r, b], strict=True)
            whole = [(start[r, b], moved[r, b], back[r, b])]
            for before, step, after in whole if len(shape) == 1 else parts:
                torch.testing.assert_close(after, step / step.norm() * before.norm())
