"""Victim models against their papers: shapes, parameters counted by hand, initial weights."""

import pytest
import torch
from scipy.stats import kstest
from torch import nn

from benchmark.check.victim import its_weights_come_from_the_seed, logits_of_an_image_do_not_depend_on_its_batch
from victims.models.convnet import ConvNet
from victims.models.lenet import LeNet
from victims.models.resnet18 import ResNet18
from victims.modules import build

MODELS = [LeNet, ConvNet, ResNet18]
each_model = pytest.mark.parametrize("make", MODELS)


def make_one(make, image_shape=(3, 32, 32), num_classes=10, seed=0):
    return build(make, image_shape=image_shape, num_classes=num_classes, seed=seed)


def parameter_count(model):
    return sum(p.numel() for p in model.parameters())


# Shapes.


@each_model
@pytest.mark.parametrize("image_shape", [(3, 32, 32), (3, 64, 64), (1, 32, 32), (4, 32, 64)], ids=str)
@pytest.mark.parametrize("num_classes", [2, 10])
def test_logits_for_any_channels_and_classes(make, image_shape, num_classes):
    model = make_one(make, image_shape, num_classes).eval()
    assert model(torch.rand(2, *image_shape)).shape == (2, num_classes)


@pytest.mark.parametrize("make", [LeNet, ConvNet])
@pytest.mark.parametrize("image_shape", [(3, 33, 33), (3, 31, 30), (1, 29, 37), (3, 5, 8)], ids=str)
def test_logits_for_odd_sizes(make, image_shape):
    model = make_one(make, image_shape, 7)
    assert model(torch.rand(2, *image_shape)).shape == (2, 7)


@each_model
def test_logits_of_an_image_do_not_depend_on_its_batch_in_eval_mode(make):
    logits_of_an_image_do_not_depend_on_its_batch(make)


# LeNet (Zhu et al., 2019).


def test_lenet_is_that_of_the_paper():
    """Three 5x5 convolutions of 12 channels, strides 2, 2, 1, and 768 = 12 x 8 x 8 features at 32 px."""
    model = make_one(LeNet)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size, m.stride) for m in convs] == [
        (3, 12, (5, 5), (2, 2)),
        (12, 12, (5, 5), (2, 2)),
        (12, 12, (5, 5), (1, 1)),
    ]
    (linear,) = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert linear.in_features == 768
    assert sum(isinstance(m, nn.Sigmoid) for m in model.modules()) == 3
    assert parameter_count(model) == (75 * 12 + 12) + 2 * (300 * 12 + 12) + (768 * 10 + 10)


def test_lenet_starts_uniform_between_minus_and_plus_a_half():
    model = make_one(LeNet, num_classes=100)
    weights = [p.detach().flatten() for name, p in model.named_parameters() if name.endswith("weight")]
    biases = torch.cat([p.detach() for name, p in model.named_parameters() if name.endswith("bias")])
    assert len(biases) == 3 * 12 + 100
    for drawn in (*weights, biases):
        assert drawn.abs().max() <= 0.5
        assert kstest(drawn.numpy(), "uniform", args=(-0.5, 1)).pvalue > 1e-3


def test_lenet_is_smooth_in_the_image():
    """Its second derivative is not zero, which attacks by L-BFGS need; that of a ReLU network is zero."""

    def curvature(model):
        image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
        (first,) = torch.autograd.grad(model(image)[0, 0], image, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), image, allow_unused=True, materialize_grads=True)
        return second.abs().max()

    assert curvature(make_one(LeNet)) > 0
    assert curvature(make_one(ConvNet)) == 0


# ConvNet.


def test_convnet_has_five_convolutions_and_no_state():
    model = make_one(ConvNet)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size, m.stride) for m in convs] == [((3, 3), (s, s)) for s in (1, 2, 1, 2, 1)]
    kernels = 3 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 64
    assert parameter_count(model) == 9 * kernels + (32 + 32 + 3 * 64) + (64 * 8 * 8 * 10 + 10)
    assert not list(model.buffers())


def test_convnet_distinguishes_positions():
    """No global pooling: moving the image changes the logits."""
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = make_one(ConvNet)
    assert not torch.allclose(model(image), model(image.roll(4, -1)), atol=1e-4)


# ResNet-18.


def resnet18_parameters(channels, num_classes):
    """He et al., table 1: a stem, four stages of two blocks of two 3x3 convolutions, a linear layer."""

    def conv(c_in, c_out, side):
        return c_in * c_out * side**2 + 2 * c_out  # without bias, with batch normalization

    total, c_in = conv(channels, 64, 3), 64
    for width in (64, 128, 256, 512):
        total += conv(c_in, width, 3) + 3 * conv(width, width, 3)
        total += conv(c_in, width, 1) if c_in != width else 0  # projection shortcut
        c_in = width
    return total + 512 * num_classes + num_classes


@pytest.mark.parametrize(("channels", "num_classes"), [(3, 10), (1, 100)])
def test_resnet18_has_the_papers_parameters(channels, num_classes):
    model = make_one(ResNet18, (channels, 32, 32), num_classes)
    assert parameter_count(model) == resnet18_parameters(channels, num_classes)


def test_resnet18_has_11_17_million_parameters():
    assert resnet18_parameters(3, 10) == 11_173_962


def test_resnet18_stem_does_not_reduce_the_image():
    model = make_one(ResNet18).eval()
    assert (model.conv1.kernel_size, model.conv1.stride, model.conv1.padding) == ((3, 3), (1, 1), (1, 1))
    assert model.conv1.bias is None
    assert not any(isinstance(m, nn.MaxPool2d) for m in model.modules())
    seen = {}
    for name in ("layer1", "layer4"):
        getattr(model, name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out.shape}))
    model(torch.rand(1, 3, 32, 32))
    assert seen == {"layer1": (1, 64, 32, 32), "layer4": (1, 512, 4, 4)}


def test_resnet18_stem_starts_like_the_other_convolutions():
    """He initialization by fan-out, 64 x 3 x 3."""
    weight = make_one(ResNet18).conv1.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)
    assert weight.mean().item() == pytest.approx(0, abs=0.01)


# build


@each_model
def test_build_depends_only_on_the_seed(make):
    its_weights_come_from_the_seed(make)


@each_model
def test_build_does_not_change_the_global_generator(make):
    before = torch.get_rng_state()
    make_one(make, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
