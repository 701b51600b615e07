"""Factored gradients against plain autograd."""

import gc

import pytest
import torch
from torch import nn

from attacks.engine import layer_gradients as factors
from attacks.engine.distances import Target, cosine, layer_l2, squared_l2
from attacks.engine.gradients import victim_gradients
from attacks.engine.packed import KEPT
from attacks.engine.probe import Probe, find_layers
from benchmark.registry import registered
from defenses.precode import Precode
from victims.modules import build
from victims.victim import Victim

R, B, SIDE, CLASSES = 3, 2, 16, 10


def make_victim(model, training=False):
    torch.manual_seed(0)
    return Victim(model.double(), mean=(0.5,) * 3, std=(0.2,) * 3, training=training)


def named(name):
    return build(registered("victim")[name], image_shape=(3, SIDE, SIDE), num_classes=CLASSES, seed=0)


def wide():
    """A late layer with few positions, whose gradient need not be formed."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.Conv2d(8, 64, 3, stride=2, padding=1), nn.Sigmoid(), nn.AdaptiveAvgPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(256, CLASSES),
    )  # fmt: skip


VICTIMS = {name: lambda name=name: named(name) for name in ("convnet", "lenet", "resnet20")} | {"wide": wide}
every_victim = pytest.mark.parametrize("model", VICTIMS.values(), ids=VICTIMS)


def dummies(soft=False):
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(R, B, 3, SIDE, SIDE, generator=draw, dtype=torch.float64, requires_grad=True)
    if not soft:
        return images, torch.randint(CLASSES, (R, B), generator=draw)
    return images, torch.randn(R, B, CLASSES, generator=draw, dtype=torch.float64, requires_grad=True)


def targets(victim, alike):
    draw = torch.Generator().manual_seed(2)
    shape = (1,) if alike else (R,)
    drawn = {n: torch.randn(*shape, *p.shape, generator=draw, dtype=p.dtype) for n, p in victim.parameters.items()}
    return {name: t.expand(R, *t.shape[1:]) for name, t in drawn.items()}


def running_statistics(victim):
    """Statistics that differ from those of an untrained net."""
    draw = torch.Generator().manual_seed(3)
    for name, buffer in victim.model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=draw) + 0.5)


@every_victim
@pytest.mark.parametrize("alike", [True, False], ids=["one target", "a target for each"])
@pytest.mark.parametrize("distance", [cosine, squared_l2, layer_l2])
@pytest.mark.parametrize("small", [0, factors.SMALL], ids=["convolutions", "products"])
def test_distances_and_their_gradients_match_plain_autograd(model, alike, distance, small, monkeypatch):
    monkeypatch.setattr(factors, "SMALL", small)
    victim = make_victim(model())
    running_statistics(victim)
    layers = find_layers(Probe(victim, (3, SIDE, SIDE), B))
    images, labels = dummies()
    target = targets(victim, alike)
    fast = distance(layers.gradient(images, labels), Target(target))
    plain = distance(victim_gradients(victim, images, labels, vectorized=False), target)
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-12)
    gradient, expected = (torch.autograd.grad(cost.sum(), images)[0] for cost in (fast, plain))
    assert (gradient - expected).norm() <= 1e-8 * expected.norm()


@every_victim
def test_formed_tensors_are_the_gradient(model):
    victim = make_victim(model())
    running_statistics(victim)
    images, labels = dummies()
    held = find_layers(Probe(victim, (3, SIDE, SIDE), B)).gradient(images, labels)
    plain = victim_gradients(victim, images, labels, vectorized=False)
    assert list(held) == list(victim.parameters)
    for name, g in plain.items():
        torch.testing.assert_close(held[name], g, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("distance", [cosine, squared_l2])
def test_candidates_without_gradients_have_the_same_distance(distance):
    victim = make_victim(wide())
    layers = find_layers(Probe(victim, (3, SIDE, SIDE), B))
    images, labels = dummies()
    target = targets(victim, True)
    with torch.no_grad():
        fast = distance(layers.gradient(images, labels), target)
        plain = distance(victim_gradients(victim, images, labels, vectorized=False), target)
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-12)


def test_soft_labels_have_gradients():
    victim = make_victim(named("lenet"))
    layers = find_layers(Probe(victim, (3, SIDE, SIDE), B))
    images, logits = dummies(soft=True)
    target = targets(victim, True)
    found = []
    for gradient in (layers.gradient, lambda *batch: victim_gradients(victim, *batch, vectorized=False)):
        cost = cosine(gradient(images, logits.softmax(-1)), target).sum()
        found.append(torch.autograd.grad(cost, [images, logits]))
    for fast, plain in zip(*found, strict=True):
        assert (fast - plain).norm() <= 1e-8 * plain.norm()


def test_the_gradient_of_a_wide_late_layer_is_not_formed(monkeypatch):
    victim = make_victim(wide())
    layers = find_layers(Probe(victim, (3, SIDE, SIDE), 1))
    images, labels = dummies()
    formed = []
    for kind in (factors.ConvolutionGradient, factors.LinearGradient):
        real = kind.formed
        monkeypatch.setattr(
            kind, "formed", lambda own, real=real: formed.append(tuple(own.layer.weight.shape)) or real(own)
        )
    cosine(layers.gradient(images[:, :1], labels[:, :1]), targets(victim, True))
    assert formed == [(8, 3, 5, 5)]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.same = nn.Conv2d(3, 3, 3, padding=1)
        self.classifier = nn.Linear(3 * SIDE**2, CLASSES)

    def forward(self, x):
        return self.classifier(self.same(self.same(x).sigmoid()).flatten(1))


class Centered(nn.Sequential):
    """Images interact."""

    def forward(self, x):
        return super().forward(x - x.mean(0))


class Shifted(nn.Module):
    """A parameter outside of any known layer."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.ones(3, SIDE, SIDE))
        self.classifier = nn.Linear(3 * SIDE**2, CLASSES)

    def forward(self, x):
        return self.classifier((x + self.shift).flatten(1))


def grouped():
    return nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.Flatten(), nn.Linear(6 * (SIDE - 2) ** 2, CLASSES))


def reflected():
    padded = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
    return nn.Sequential(padded, nn.Flatten(), nn.Linear(4 * SIDE**2, CLASSES))


UNKNOWN = {
    "a layer called twice": Twice,
    "images that interact": lambda: Centered(nn.Flatten(), nn.Linear(3 * SIDE**2, CLASSES)),
    "a parameter of its own": Shifted,
    "groups": grouped,
    "reflected borders": reflected,
    "a layer norm": lambda: nn.Sequential(nn.LayerNorm(SIDE), nn.Flatten(), nn.Linear(3 * SIDE**2, CLASSES)),
    "a penalty": lambda: Precode(8).model(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, CLASSES)), (3, SIDE, SIDE)
    ),
}


@pytest.mark.parametrize("model", UNKNOWN.values(), ids=UNKNOWN)
def test_victims_that_cannot_be_factored_are_recognized(model):
    torch.manual_seed(0)
    assert find_layers(Probe(make_victim(model()), (3, SIDE, SIDE), B)) is None


def test_batch_norm_of_the_batch_cannot_be_factored():
    assert find_layers(Probe(make_victim(named("resnet20"), training=True), (3, SIDE, SIDE), B)) is None
    assert find_layers(Probe(make_victim(named("resnet20")), (3, SIDE, SIDE), B)) is not None


@pytest.mark.parametrize("alike", [True, False], ids=["one target", "a target for each"])
def test_in_float32_costs_and_gradients_are_those_of_float64_up_to_rounding(alike):
    """There weights are packed, and a second step finds them so."""
    exact, victim = (
        Victim(wide().to(dtype), mean=(0.5,) * 3, std=(0.2,) * 3) for dtype in (torch.float64, torch.float32)
    )
    images, labels = dummies()
    target = targets(exact, alike)
    cost = cosine(victim_gradients(exact, images, labels, vectorized=False), target)
    (expected,) = torch.autograd.grad(cost.sum(), images)
    layers = find_layers(Probe(victim, (3, SIDE, SIDE), B))
    received = Target({name: t[:1].float().expand_as(t) if alike else t.float() for name, t in target.items()})
    for _ in range(2):
        x = images.detach().float().requires_grad_()
        found = cosine(layers.gradient(x, labels), received)
        torch.testing.assert_close(found.double(), cost, rtol=1e-5, atol=1e-6)
        (gradient,) = torch.autograd.grad(found.sum(), x)
        assert (gradient - expected).norm() <= 1e-4 * expected.norm()


def test_nothing_that_is_kept_of_a_received_gradient_outlives_it():
    victim = Victim(wide(), mean=(0.5,) * 3, std=(0.2,) * 3)
    layers = find_layers(Probe(victim, (3, SIDE, SIDE), 1))
    x, labels = dummies()
    counts = []
    for _ in range(2):
        received = {name: t.float().clone() for name, t in targets(victim, True).items()}
        cosine(layers.gradient(x[:1, :1].float(), labels[:1, :1]), {name: t[:1] for name, t in received.items()})
        del received
        gc.collect()
        counts.append(len(KEPT))
    assert counts[0] == counts[1]
