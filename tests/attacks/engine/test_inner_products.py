"""Inner products and their gradients, against plain autograd."""

import pytest
import torch

from attacks.engine import inner_products as products
from attacks.engine.inner_products import Products, Square, dot


@pytest.fixture(params=["one instance", "a target for all", "a target for each", "blocks"])
def tensors(request, monkeypatch):
    """g and its target, (R, 3, 4) each."""
    draw = torch.Generator().manual_seed(0)
    R = 1 if request.param == "one instance" else 3
    g, target = (torch.randn(R, 3, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    if request.param == "a target for all":
        target = target[:1].expand(R, -1, -1)
    if request.param == "blocks":
        monkeypatch.setattr(products, "BLOCK", 15)  # five entries of an instance
    return g.requires_grad_(), target


def test_products_are_sums_over_entries(tensors):
    g, target = tensors
    along, norm2 = Products.apply(g, target)
    for instance in range(len(g)):
        entries, others = g[instance].flatten().tolist(), target[instance].flatten().tolist()
        assert along[instance].item() == pytest.approx(sum(a * b for a, b in zip(entries, others, strict=True)))
        assert norm2[instance].item() == pytest.approx(sum(a * a for a in entries))
    torch.testing.assert_close(Square.apply(g), norm2)
    torch.testing.assert_close(dot(g, target), along)


def test_gradients_match_finite_differences(tensors):
    g, target = tensors
    assert torch.autograd.gradcheck(lambda g: Products.apply(g, target), g)
    assert torch.autograd.gradcheck(Square.apply, g)


def test_gradients_of_one_product_do_not_contain_the_other(tensors):
    g, target = tensors
    along, norm2 = Products.apply(g, target)
    torch.testing.assert_close(torch.autograd.grad(along.sum(), g)[0], target.clone())
    along, norm2 = Products.apply(g, target)
    torch.testing.assert_close(torch.autograd.grad(norm2.sum(), g)[0], 2 * g.detach())


@pytest.mark.parametrize("R", [1, 2])
def test_a_sum_of_millions_has_single_precision(R):
    g = torch.randn(R, 3_000_000, generator=torch.Generator().manual_seed(0))
    exact = g.double().square().sum(1)
    for found in (dot(g, g), dot(g, g[:1].expand_as(g))):
        assert ((found[0] - exact[0]) / exact[0]).abs() < 2e-6
