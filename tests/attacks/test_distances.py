import numpy as np
import pytest
import torch

from attacks.distances import cosine, squared_l2

SHAPES = {"conv": (4, 3, 2, 2), "bias": (4,), "one": (1,)}


@pytest.fixture
def gradients():
    generator = torch.Generator().manual_seed(0)
    return [{name: torch.randn(3, *shape, generator=generator) for name, shape in SHAPES.items()} for _ in range(2)]


def flat(gradient, run):
    return np.concatenate([g[run].numpy().ravel() for g in gradient.values()]).astype(np.float64)


def test_cosine_is_one_cosine_over_all_tensors(gradients):
    dummy, received = gradients
    for run, cost in enumerate(cosine(dummy, received)):
        a, b = flat(dummy, run), flat(received, run)
        assert cost.item() == pytest.approx(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    per_layer = np.mean([
        1 - torch.cosine_similarity(dummy[n].flatten(1), received[n].flatten(1)).numpy() for n in SHAPES
    ], 0)  # fmt: skip
    assert not np.allclose(cosine(dummy, received).numpy(), per_layer, atol=1e-2)


def test_cosine_does_not_see_scale(gradients):
    dummy, received = gradients
    scaled = {name: 7 * g for name, g in dummy.items()}
    torch.testing.assert_close(cosine(scaled, received), cosine(dummy, received))


def test_cosine_of_a_zero_dummy_is_one_and_of_a_zero_target_nan(gradients):
    dummy, received = gradients
    nothing = {name: torch.zeros_like(g).requires_grad_() for name, g in dummy.items()}
    cost = cosine(nothing, received)
    assert cost.tolist() == [1, 1, 1]
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(cost.sum(), list(nothing.values())))
    assert torch.isnan(cosine(dummy, nothing)).all()


def test_squared_l2(gradients):
    dummy, received = gradients
    for run, cost in enumerate(squared_l2(dummy, received)):
        assert cost.item() == pytest.approx(((flat(dummy, run) - flat(received, run)) ** 2).sum(), rel=1e-5)
