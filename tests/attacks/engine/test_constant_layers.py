"""Layers with constant weights, against finite differences and the victim's own layers."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from attacks.engine.constant_layers import (
    Adjoint,
    ConstantBatchNorm,
    ConstantConvolution,
    Convolution,
    with_constant_layers,
)
from victims.victim import Victim


def drawn(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_and_its_adjoint_are_each_others_derivatives(stride):
    how, weight, bias = ((stride, stride), (1, 0), (1, 2)), drawn(3, 2, 3, 2), drawn(3)
    x = drawn(2, 2, 5, 6).requires_grad_()
    apply = lambda x: Convolution.apply(x, weight, bias, how)  # noqa: E731
    d = apply(x).detach().requires_grad_()
    back = lambda d: Adjoint.apply(d, weight, x.shape[2:], how)  # noqa: E731
    for function, at in ((apply, x), (back, d)):
        assert gradcheck(function, (at,))
        assert gradgradcheck(function, (at,))


class Mixed(nn.Module):
    """Layers that are replaced, and such that must not be."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.bare = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)
        self.reflected = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
        self.batch = nn.BatchNorm2d(4, track_running_stats=False)
        self.classifier = nn.Linear(4, 10)

    def forward(self, x):
        x = self.bare(self.bn(self.conv(x)).sigmoid())
        x = self.batch(self.normed(self.reflected(self.grouped(x))))
        return self.classifier(x.mean((2, 3)))


def make_victim(dtype=torch.float64):
    torch.manual_seed(0)
    model = Mixed()
    for bn in (model.bn, model.bare):
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.5, 2)
    return Victim(model.to(dtype), mean=(0.5,) * 3, std=(0.2,) * 3)


def test_a_victims_copy_computes_the_same_with_its_weights_and_leaves_it_as_it_is():
    victim = make_victim()
    kinds = [type(layer) for layer in victim.model.modules()]
    made = with_constant_layers(victim)
    x = drawn(2, 3, 8, 8)
    torch.testing.assert_close(made.logits({}, x), victim.logits({}, x), rtol=1e-12, atol=1e-12)
    assert [type(layer) for layer in victim.model.modules()] == kinds
    for one, other in zip(made.model.parameters(), victim.model.parameters(), strict=True):
        assert one is other


def test_only_layers_that_are_known_to_be_linear_are_replaced():
    model = with_constant_layers(make_victim()).model
    replaced = {n for n, m in model.named_modules() if isinstance(m, ConstantConvolution | ConstantBatchNorm)}
    assert replaced == {"conv", "bn", "bare"}


def test_autocast_inside_a_model_still_computes_in_half_precision():
    layer = with_constant_layers(make_victim(torch.float32)).model.conv
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(drawn(1, 3, 8, 8, dtype=torch.float32)).dtype == torch.bfloat16
