"""The victims of R-GAP against the paper and its authors' layout."""

import pytest
import torch
from torch import nn

from victims.models.cnn6 import CNN6
from victims.models.cnn6_d import CNN6d
from victims.models.cnn10 import CNN10
from victims.models.fcn3 import FCN3
from victims.models.fcn3_leaky import FCN3Leaky
from victims.modules import build

MODELS = [FCN3, FCN3Leaky, CNN6, CNN6d, CNN10]
each_model = pytest.mark.parametrize("make", MODELS)

CNN6_KERNELS = [(12, 3, 4, 4), (36, 12, 3, 3), (36, 36, 3, 3), (36, 36, 3, 3), (64, 36, 3, 3), (128, 64, 3, 3)]
CNN6_D_KERNELS = [(12, 3, 4, 4), (20, 12, 3, 3), (36, 20, 3, 3), (36, 36, 3, 3), (64, 36, 3, 3), (128, 64, 3, 3)]
CNN10_KERNELS = CNN6_KERNELS[:4] + 4 * [(36, 36, 3, 3)] + CNN6_KERNELS[4:]


def make_one(make, image_shape=(3, 32, 32), num_classes=10, seed=0):
    return build(make, image_shape=image_shape, num_classes=num_classes, seed=seed)


@pytest.mark.parametrize(
    ("make", "kernels", "strides"),
    [
        (CNN6, CNN6_KERNELS, [2, 2, 1, 1, 2, 1]),
        (CNN6d, CNN6_D_KERNELS, [2, 2, 1, 1, 2, 1]),
        (CNN10, CNN10_KERNELS, [2, 2, 1, 1, 1, 1, 1, 1, 2, 1]),
    ],
)
def test_convolutions_at_32_px(make, kernels, strides):
    model = make_one(make)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [tuple(layer.weight.shape) for layer in layers] == kernels
    assert [layer.stride for layer in layers] == [(s, s) for s in strides]
    assert [layer.padding for layer in layers] == [(2, 2)] + [(1, 1)] * (len(kernels) - 1)
    (linear,) = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert linear.weight.shape == (1, 3200)
    assert sum(isinstance(m, nn.LeakyReLU) for m in model.modules()) == len(kernels)


def test_fcn3_at_32_px():
    model = make_one(FCN3)
    shapes = [tuple(m.weight.shape) for m in model.modules() if isinstance(m, nn.Linear)]
    assert shapes == [(1000, 3072), (100, 1000), (1, 100)]
    assert sum(isinstance(m, nn.LeakyReLU) for m in model.modules()) == 2


def test_fcn3_of_the_code_bends_the_logit_of_fcn3():
    plain, leaky = make_one(FCN3), make_one(FCN3Leaky)
    x = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = plain(x)
    assert logits.min() < 0 < logits.max()
    assert torch.equal(leaky(x), logits.where(logits > 0, 0.2 * logits))


@each_model
def test_no_bias_no_state_and_slope_a_fifth(make):
    model = make_one(make)
    assert all(name.endswith("weight") for name, _ in model.named_parameters())
    assert not list(model.buffers())
    assert {m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}


@each_model
@pytest.mark.parametrize("image_shape", [(3, 32, 32), (3, 16, 16), (1, 28, 28), (3, 31, 30)], ids=str)
def test_one_logit_for_any_number_of_classes(make, image_shape):
    for num_classes in (2, 10):
        assert make_one(make, image_shape, num_classes)(torch.rand(2, *image_shape)).shape == (2, 1)


@each_model
def test_the_logit_grows_with_the_image(make):
    """Without biases: f(c x) = c f(x) for c > 0."""
    model = make_one(make).double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(3 * x), 3 * model(x))
    assert not torch.allclose(model(-x), -model(x))


@each_model
def test_build_depends_only_on_the_seed(make):
    first, again, other = (make_one(make, seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
