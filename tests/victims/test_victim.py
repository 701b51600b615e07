"""The victim against plain modules and `loss.backward()`; the original never changes."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.func import grad, vmap
from torch.nn.functional import cross_entropy

from victims.data.photos import Photos
from victims.losses.cross_entropy import CrossEntropy
from victims.models.convnet import ConvNet
from victims.models.lenet import LeNet
from victims.models.resnet18 import ResNet18
from victims.modules import build
from victims.rounds import train
from victims.victim import LossTerm, Victim, gradient

MEAN, STD = (0.5, 0.4, 0.3), (0.3, 0.2, 0.25)
LABELS = torch.tensor([3, 1, 3])
each_mode = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=[LeNet, ConvNet, ResNet18])
def model(request):
    """A model in float64, in train mode, whose batch-norm layers have seen images."""
    made = build(request.param, image_shape=(3, 16, 16), num_classes=5, seed=0).double()
    return warm_up(made)


@pytest.fixture
def images():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def warm_up(model):
    """Running statistics away from (0, 1), so that eval mode does not hide them."""
    seen = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        model.train()(2 * seen + 1)
    return model


def backward(model, images, labels, training):
    """What a client would compute with plain torch, on its own module."""
    plain = deepcopy(model).train(training)
    cross_entropy(plain(images), labels).backward()
    return {name: p.grad for name, p in plain.named_parameters()}


def all_close(actual, expected):
    assert list(actual) == list(expected)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-8, atol=1e-12, msg=lambda m, n=name: n + m)


# The gradient.


@each_mode
def test_gradient_is_that_of_the_plain_module(model, images, training):
    victim = Victim(model, mean=MEAN, std=STD, training=training)
    all_close(gradient(victim, images, LABELS), backward(model, images, LABELS, training))


@each_mode
def test_loss_is_that_of_the_plain_module(model, images, training):
    victim = Victim(model, mean=MEAN, std=STD, training=training)
    expected = cross_entropy(deepcopy(model).train(training)(images), LABELS)
    torch.testing.assert_close(victim.loss(victim.parameters, images, LABELS), expected)


def test_modes_differ_for_a_net_with_batch_normalization(images):
    model = warm_up(build(ResNet18, image_shape=(3, 16, 16), num_classes=5, seed=0).double())
    inference, training = (Victim(model, mean=MEAN, std=STD, training=mode) for mode in (False, True))
    one, other = gradient(inference, images, LABELS), gradient(training, images, LABELS)
    assert not torch.allclose(one["conv1.weight"], other["conv1.weight"], rtol=0.1)


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradient_is_differentiable_only_when_asked(images, create_graph):
    victim = Victim(build(LeNet, image_shape=(3, 16, 16), num_classes=5, seed=0).double(), mean=MEAN, std=STD)
    g = gradient(victim, images.requires_grad_(), LABELS, create_graph=create_graph)
    assert all(tensor.requires_grad == create_graph for tensor in g.values())


def test_gradient_of_the_gradient_is_its_finite_difference(images):
    victim = Victim(build(LeNet, image_shape=(3, 16, 16), num_classes=5, seed=0).double(), mean=MEAN, std=STD)

    def cost(x):
        return sum(g.square().sum() for g in gradient(victim, x, LABELS, create_graph=True).values())

    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (second,) = torch.autograd.grad(cost(images.requires_grad_()), images)
    step = 1e-5 * direction
    difference = (cost(images.detach() + step) - cost(images.detach() - step)) / 2e-5
    assert (second * direction).sum().item() == pytest.approx(difference.item(), rel=1e-6)


class Unused(nn.Module):
    """A linear classifier with a parameter that the forward pass does not touch."""

    def __init__(self):
        super().__init__()
        self.idle = nn.Parameter(torch.ones(2, 3))
        self.linear = nn.Linear(3 * 16 * 16, 5)

    def forward(self, x):
        return self.linear(x.flatten(1))


@pytest.mark.parametrize("create_graph", [False, True])
def test_unused_parameters_have_a_gradient_of_zeros(images, create_graph):
    victim = Victim(Unused().double(), mean=MEAN, std=STD)
    g = gradient(victim, images, LABELS, create_graph=create_graph)
    assert torch.equal(g["idle"], torch.zeros(2, 3, dtype=torch.float64))
    assert g["linear.weight"].abs().max() > 0


def test_frozen_parameters_have_no_gradient(images):
    model = build(LeNet, image_shape=(3, 16, 16), num_classes=5, seed=0).double()
    expected = backward(model, images, LABELS, training=False)
    frozen = next(iter(expected))
    model.get_parameter(frozen).requires_grad_(False)
    del expected[frozen]
    all_close(gradient(Victim(model, mean=MEAN, std=STD), images, LABELS), expected)


class Decay(LossTerm):
    """A linear classifier of images (B, 3, 16, 16) with a penalty on its weights."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 10)

    def forward(self, x):
        self.penalty = 0.5 * self.linear.weight.square().sum()
        return self.linear(x.flatten(1))


def test_a_loss_term_is_added_to_the_loss(images):
    model = build(Decay, seed=0).double()
    for wrapped, prefix in ((model, ""), (nn.Sequential(model), "0.")):
        victim = Victim(wrapped, mean=MEAN, std=STD)
        expected = backward(wrapped, images, LABELS, training=False)
        expected[f"{prefix}linear.weight"] += model.linear.weight.detach()
        all_close(gradient(victim, images, LABELS), expected)
        many = vmap(grad(victim.loss), (None, 0, None))(victim.parameters, images[None], LABELS)
        all_close({name: g[0] for name, g in many.items()}, expected)
        assert not any(penalty.any() for penalty in victim.model.buffers())


def test_other_clients_train_with_the_loss_term_too():
    data, model = Photos(split="tune", size=16), build(Decay, seed=0)
    start = deepcopy(model)
    train(model, CrossEntropy(), data, data.preprocessing, 1, torch.Generator().manual_seed(0), lr=0.5)
    images, labels = data.augmented(64, torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    gradients = backward(start, (images - mean) / std, labels, training=True)
    expected = start.linear.weight - 0.5 * (gradients["linear.weight"] + start.linear.weight)
    torch.testing.assert_close(model.linear.weight, expected)
    Victim(model, mean=MEAN, std=STD)  # a copy can be made of what has been trained


def test_a_buffer_among_the_parameters_replaces_that_of_the_model(images):
    model = warm_up(build(ResNet18, image_shape=(3, 16, 16), num_classes=5, seed=0).double())
    victim, other = Victim(model, mean=MEAN, std=STD), deepcopy(model).eval()
    moved = {"bn1.running_mean": other.bn1.running_mean + 1}
    other.load_state_dict(moved, strict=False)
    torch.testing.assert_close(victim.logits({**victim.parameters, **moved}, images), other(images))


# The original.


@each_mode
@pytest.mark.parametrize("was_training", [False, True])
def test_the_original_is_never_changed(model, images, training, was_training):
    model.train(was_training)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = deepcopy(model)
    victim = Victim(model, mean=MEAN, std=STD, training=training)
    gradient(victim, images.requires_grad_(), LABELS, create_graph=True)
    victim.to("cpu")
    for name, parameter in victim.model.named_parameters():
        parameter.data.add_(1)  # not even by someone who writes into the victim
        assert not torch.equal(model.get_parameter(name), parameter)
    assert str(model) == str(before)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    for (name, p), (_, q) in zip(model.named_parameters(), before.named_parameters(), strict=True):
        assert torch.equal(p, q), name
        assert p.requires_grad == q.requires_grad
        assert torch.equal(p.grad, torch.ones_like(p)), name
    for (name, b), (_, c) in zip(model.named_buffers(), before.named_buffers(), strict=True):
        assert torch.equal(b, c), name


@each_mode
def test_nothing_in_the_victim_changes(model, images, training):
    """The second gradient is the first: no running statistics, no accumulated gradients."""
    victim = Victim(model, mean=MEAN, std=STD, training=training)
    before = {name: tensor.clone() for name, tensor in victim.model.state_dict().items()}
    first = gradient(victim, images, LABELS)
    gradient(victim, 5 * images - 3, LABELS, create_graph=True)
    second = gradient(victim, images, LABELS)
    assert all(torch.equal(first[name], second[name]) for name in first)
    after = victim.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in victim.model.parameters())


def test_parameters_are_the_models_and_need_no_gradient(model):
    victim = Victim(model, mean=MEAN, std=STD)
    assert list(victim.parameters) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        assert torch.equal(victim.parameters[name], parameter)
        assert not victim.parameters[name].requires_grad


# Preprocessing.


@pytest.mark.parametrize("leading", [(), (2,), (2, 4)], ids=str)
def test_normalize_is_the_formula_and_denormalize_its_inverse(leading):
    pixels = torch.rand(*leading, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    victim = Victim(nn.Linear(1, 1).double(), mean=MEAN, std=STD)
    normalized = victim.normalize(pixels)
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        expected = (pixels[..., channel, :, :] - mean) / std
        torch.testing.assert_close(normalized[..., channel, :, :], expected)
    torch.testing.assert_close(victim.denormalize(normalized), pixels)


def test_denormalize_does_not_clamp():
    victim = Victim(nn.Linear(1, 1), mean=(0.5,), std=(0.5,))
    assert victim.denormalize(torch.tensor([[[3.0]], [[-3.0]]]).unsqueeze(1)).flatten().tolist() == [2.0, -1.0]
