"""Independent components: against FastICA, numerical integrals and plain loops."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import FastICA

from attacks.closed_form.independent_components import (
    OF_A_NORMAL,
    decorrelation,
    negentropy,
    unit_rows,
    warn_of_rank,
    whitening,
)
from victims.errors import Notice


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sources(n=5_000):
    """Uniform, two-valued, Laplace and cubed normal numbers, (4, n)."""
    rng = np.random.default_rng(0)
    drawn = [rng.uniform(-1, 1, n), rng.choice([-1.0, 1.0], n) * 3, rng.laplace(size=n), rng.normal(size=n) ** 3 / 9]
    return torch.from_numpy(np.stack(drawn))


def matched(found, true):
    """The least |correlation| of sources with the components that are matched to them."""
    both = np.abs(np.corrcoef(torch.cat([true, found]).numpy()))[: len(true), len(true) :]
    return both[linear_sum_assignment(-both)].min()


def separated(G, B, steps=400):
    """By Adam on the negentropy and the decorrelation alone."""
    M = whitening(G, B) @ G
    U = torch.linalg.qr(draw(B, B))[0].requires_grad_()
    adam = torch.optim.Adam([U], lr=0.03)
    for _ in range(steps):
        adam.zero_grad()
        rows = unit_rows(U)
        (0.1 * decorrelation(rows[None], 12.4).sum() - 30 * negentropy(rows @ M).mean()).backward()
        adam.step()
    return (unit_rows(U) @ M).detach()


def test_sources_are_separated_up_to_order_and_sign_as_by_fast_ica():
    G = draw(7, 4) @ (sources() + torch.tensor([[1.0], [2.0], [-3.0], [0.5]]))
    fast = FastICA(4, whiten="unit-variance", random_state=0).fit_transform(G.T.numpy()).T
    ours = separated(G, 4)
    assert matched(torch.from_numpy(fast.copy()), sources()) > 0.99
    assert matched(ours, sources()) > 0.99
    assert matched(ours, torch.from_numpy(fast.copy())) > 0.99
    assert matched(whitening(G, 4) @ G, sources()) < 0.95, "principal components do not separate them"


def test_whitening_leaves_the_unit_covariance_of_the_mixtures():
    G = draw(9, 5) @ draw(5, 300, seed=1) + draw(9, 1, seed=2)
    K = whitening(G, 5)
    torch.testing.assert_close(torch.from_numpy(np.cov((K @ G).numpy(), bias=True)), torch.eye(5, dtype=torch.float64))
    centered = G - G.mean(1, keepdim=True)
    torch.testing.assert_close(torch.linalg.pinv(K) @ K @ centered, centered)
    torch.testing.assert_close(whitening(-G, 5) @ -G, whitening(G, 5) @ G)  # the sign is that of the components


def test_a_gradient_of_smaller_rank_has_rows_of_zeros_and_a_notice():
    G = draw(9, 3) @ draw(3, 300, seed=1)
    K = whitening((G + 1e-8 * draw(9, 300, seed=2)).float().double(), 5)
    assert K.any(1).tolist() == [True] * 3 + [False] * 2
    with pytest.warns(Notice, match="fc1 has rank 3, and the batch has 5 images: 2 of them"):
        warn_of_rank([whitening(draw(9, 300), 5), K], "fc1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_rank([whitening(draw(9, 300), 5), torch.zeros_like(K)], "fc1")
    assert not whitening(torch.full((9, 300), torch.nan, dtype=torch.float64), 5).any()


def test_negentropy_is_the_squared_distance_from_the_mean_of_a_normal():
    density = lambda v: math.exp(-v * v / 2) / math.sqrt(2 * math.pi)  # noqa: E731
    assert quad(lambda v: math.log(math.cosh(v)) * density(v), -30, 30)[0] == pytest.approx(OF_A_NORMAL, abs=1e-9)
    s = 5 * draw(2, 3, 50)  # far out, where cosh overflows in float32
    s[0, 0, 0] = 200
    direct = ((s - s.mean(-1, keepdim=True)).cosh().log().mean(-1) - OF_A_NORMAL) ** 2
    torch.testing.assert_close(negentropy(s), direct)
    torch.testing.assert_close(negentropy(s.float()), direct.float())
    assert negentropy(draw(100_000)) < 1e-5
    assert (negentropy(unit_rows(sources(20_000)) * math.sqrt(20_000)) > 5e-4).all()


def test_decorrelation_is_the_sum_over_pairs():
    U = unit_rows(draw(2, 3, 3))
    for r in range(2):
        pairs = [math.exp(5 * abs(U[r, i] @ U[r, j])) - 1 for i in range(3) for j in range(3) if i != j]
        assert decorrelation(U, 5.0)[r] == pytest.approx(sum(pairs) / 9)
    assert decorrelation(torch.linalg.qr(draw(1, 4, 4))[0], 12.4) < 1e-10
