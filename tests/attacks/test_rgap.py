"""R-GAP: its linear systems against autograd and naive loops, its roots against a grid, and its reconstructions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from attacks.closed_form import recursion
from attacks.closed_form.chain import Layer, back, chain
from attacks.closed_form.least_squares import least_squares
from attacks.closed_form.recursion import (
    gradient_matrix,
    left_side,
    margins,
    reconstruct_input,
    weight_matrix,
)
from attacks.rgap import RGAP
from victims.data.photos import Photos
from victims.errors import InputError, Notice
from victims.models.cnn6 import CNN6
from victims.models.cnn6_d import CNN6d
from victims.models.convnet import ConvNet
from victims.models.fcn3 import FCN3
from victims.models.fcn3_leaky import FCN3Leaky
from victims.models.resnet18 import ResNet18
from victims.modules import build
from victims.victim import Victim

TASK = (7,)
CONVOLUTIONS = [  # channels in and out, kernel, stride, padding, dilation, height, width
    (2, 3, 3, 1, 1, 1, 6, 5),
    (3, 4, 4, 2, 2, 1, 8, 8),
    (2, 5, 3, 2, 1, 1, 7, 9),
    (3, 2, (3, 2), (1, 2), (0, 1), 1, 6, 7),
    (2, 2, 3, 1, 2, 2, 7, 7),
    (1, 6, 1, 1, 0, 1, 4, 4),
]
each_convolution = pytest.mark.parametrize("spec", CONVOLUTIONS, ids=str)


def relative(a, b):
    return float((a - b).norm() / b.norm())


def convolution(spec, seed=0):
    """A random layer, its true input, and z, k and g at it."""
    c_in, c_out, kernel, stride, padding, dilation, height, width = spec
    torch.manual_seed(seed)
    module = nn.Conv2d(c_in, c_out, kernel, stride, padding, dilation, bias=False).double().requires_grad_(False)
    x = torch.randn(c_in, height, width, dtype=torch.float64)
    z = module(x[None])[0]
    k = torch.randn_like(z)
    g = torch.func.grad(lambda w: (torch.func.functional_call(module, {"weight": w}, (x[None],))[0] * k).sum())(
        module.weight
    )
    return Layer("conv", module, x.shape, z.shape), x, z, k, g


def system(layer, k):
    """The stacked matrix of all equations, by autograd: one row for each weight and for each output."""
    module, zero = layer.module, torch.zeros(1, *layer.input_shape, dtype=torch.float64)

    def gradients(x):
        return torch.func.grad(lambda w: (torch.func.functional_call(module, {"weight": w}, (x,))[0] * k).sum())(
            module.weight
        ).flatten()

    rows = [torch.func.jacfwd(gradients)(zero), torch.func.jacrev(lambda x: module(x).flatten())(zero)]
    return torch.cat([r.flatten(1) for r in rows])


# The linear systems.


@each_convolution
def test_constraints_hold_at_the_true_input(spec):
    layer, x, z, k, g = convolution(spec)
    predicted = gradient_matrix(layer.module, k, layer.input_shape) @ x.flatten(1).T  # (C_out * kernel, C_in)
    expected = g.flatten(2).transpose(1, 2).flatten(0, 1)
    assert (predicted - expected).abs().max() < 1e-12
    assert (weight_matrix(layer.module, layer.input_shape) @ x.flatten() - z.flatten()).abs().max() < 1e-12


@each_convolution
def test_rank_and_input_match_the_whole_system(spec):
    """Against the pseudo-inverse of the matrix that autograd gives, full rank or not."""
    layer, x, z, k, g = convolution(spec)
    a, b = system(layer, k), torch.cat([g.flatten(), z.flatten()])
    report = reconstruct_input(layer, z, k, g)
    assert report.rank == int(torch.linalg.matrix_rank(a))
    assert not report.rank_is_bound
    assert (report.gradient_equations + report.weight_equations, report.unknowns) == a.shape
    assert report.input.shape == x.shape
    assert relative(report.input.flatten(), torch.linalg.pinv(a) @ b) < 1e-8
    assert report.residual < 1e-12
    if report.rank == report.unknowns:
        assert relative(report.input, x) < 1e-9


@each_convolution
def test_left_side_is_the_product_with_the_whole_matrix(spec):
    layer, x, z, k, g = convolution(spec)
    other = torch.randn_like(x)
    assert relative(left_side(layer.module, other, k), system(layer, k) @ other.flatten()) < 1e-12
    assert relative(left_side(layer.module, x, k), torch.cat([g.flatten(), z.flatten()])) < 1e-12


def test_some_of_these_systems_are_deficient_and_some_are_not():
    reports = [reconstruct_input(layer, z, k, g) for layer, _, z, k, g in map(convolution, CONVOLUTIONS)]
    assert {report.rank < report.unknowns for report in reports} == {True, False}


def test_padding_is_eliminated_where_the_paper_adds_rows():
    """The paper's system: padded unknowns, one row for each that sets it to zero, everything in loops."""
    layer, x, z, k, g = convolution((2, 3, 3, 2, 1, 1, 5, 5))
    z, k, g = z + 0.1, k, g + 0.2  # inconsistent: both must find the same compromise
    weight, side = layer.module.weight, 7  # 5 pixels and one of padding on each side

    def unknown(c, row, column):
        return (c * side + row) * side + column

    rows, targets = [], []
    for o, c, i, j in np.ndindex(*weight.shape):
        row = np.zeros(2 * side * side)
        for p, q in np.ndindex(*k.shape[1:]):
            row[unknown(c, 2 * p + i, 2 * q + j)] += k[o, p, q]
        rows.append(row)
        targets.append(g[o, c, i, j])
    for o, p, q in np.ndindex(*z.shape):
        row = np.zeros(2 * side * side)
        for c, i, j in np.ndindex(*weight.shape[1:]):
            row[unknown(c, 2 * p + i, 2 * q + j)] += weight[o, c, i, j]
        rows.append(row)
        targets.append(z[o, p, q])
    inside = np.zeros((2, side, side), dtype=bool)
    inside[:, 1:-1, 1:-1] = True
    a, b = np.array(rows), np.array([float(t) for t in targets])
    padding = np.eye(a.shape[1])[~inside.flatten()] * 1e6  # with a weight: rows that must hold
    solved = np.linalg.lstsq(np.concatenate([a, padding]), np.concatenate([b, np.zeros(len(padding))]), rcond=None)[0]
    report = reconstruct_input(layer, z, k, g)
    expected = torch.from_numpy(solved[inside.flatten()]).reshape(x.shape)
    assert relative(report.input, expected) < 1e-6
    assert report.residual == pytest.approx(np.linalg.norm(a @ solved - b) / np.linalg.norm(b), rel=1e-6)


@pytest.mark.parametrize("shape", [(9, 6), (6, 6), (5, 8), (40, 3)], ids=str)
@pytest.mark.parametrize("lacking", [0, 2])
def test_least_squares_is_the_pseudo_inverse(shape, lacking):
    generator = torch.Generator().manual_seed(0)
    rank = min(shape) - lacking
    left, right = (torch.randn(n, rank, generator=generator, dtype=torch.float64) for n in shape)
    a, b = left @ right.T, torch.randn(shape[0], generator=generator, dtype=torch.float64)
    solution = least_squares(a, b)
    expected = torch.linalg.pinv(a) @ b
    assert solution.rank == rank == int(torch.linalg.matrix_rank(a))
    torch.testing.assert_close(solution.x, expected, rtol=1e-9, atol=1e-11)
    assert solution.residual == pytest.approx(float((a @ expected - b).norm()), abs=1e-11)


@pytest.mark.parametrize("shape", [(46, 64), (64, 64), (90, 64), (300, 40)], ids=str)
@pytest.mark.parametrize("kind", ["full rank", "graded", "repeated columns", "zero rows and columns"])
def test_least_squares_has_the_rank_solution_and_residual_of_scipy(shape, kind):
    random = np.random.default_rng(0)
    a, b = random.normal(size=shape), random.normal(size=shape[0])
    if kind == "graded":
        a *= np.logspace(0, -6, shape[1])
    elif kind == "repeated columns":
        a[:, ::2] = a[:, 1::2]
    elif kind == "zero rows and columns":
        a[::7], a[:, ::5] = 0, 0
    expected, _, rank, _ = scipy.linalg.lstsq(a, b, cond=max(shape) * np.finfo(float).eps, lapack_driver="gelss")
    solution = least_squares(torch.from_numpy(a), torch.from_numpy(b))
    assert solution.rank == rank == np.linalg.matrix_rank(a)
    np.testing.assert_allclose(solution.x, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())
    assert solution.residual == pytest.approx(np.linalg.norm(a @ expected - b), rel=1e-9, abs=1e-9)


@each_convolution
def test_iteration_finds_what_factorization_finds(spec, monkeypatch):
    layer, _, z, k, g = convolution(spec)
    dense = reconstruct_input(layer, z + 0.1, k, g)
    monkeypatch.setattr(recursion, "DENSE_LIMIT", 0)
    iterated = reconstruct_input(layer, z + 0.1, k, g)
    assert iterated.rank_is_bound
    assert iterated.rank >= dense.rank
    assert relative(iterated.input, dense.input) < 1e-6
    assert iterated.residual == pytest.approx(dense.residual, rel=1e-6)


def test_a_linear_layers_input_is_read_from_its_gradient():
    generator = torch.Generator().manual_seed(0)
    x, k = (torch.randn(n, generator=generator, dtype=torch.float64) for n in (5, 3))
    layer = Layer("fc", nn.Linear(5, 3, bias=False).double(), x.shape, k.shape)
    report = reconstruct_input(layer, torch.zeros(3), k, k.outer(x))
    assert relative(report.input, x) < 1e-14
    assert (report.rank, report.unknowns, report.gradient_equations, report.weight_equations) == (5, 5, 15, 0)
    wrong = reconstruct_input(layer, torch.zeros(3), k, k.outer(x) + torch.eye(3, 5))
    assert wrong.residual > 0.1


# The last layer.


def test_margins_are_the_crossings_of_a_fine_grid():
    m = np.linspace(-8, 12, 2_000_001)
    f = -m / (1 + np.exp(m))
    for product in (5.0, 0.5, 1e-3, -1e-3, -0.1, -0.25, -0.278):
        crossings = m[:-1][np.diff(np.sign(f - product)) != 0]
        assert margins(product) == pytest.approx(sorted(crossings), abs=2e-5)
        assert len(crossings) == (1 if product > 0 else 2)


@pytest.mark.parametrize("m", [-500.0, -30.0, -1e-9, 1e-9, 0.02, 1.0, 1.5, 7.0, 40.0, 600.0])
def test_margins_are_found_to_the_last_digits(m):
    product = -m / (1 + math.exp(m))
    assert min(abs(root / m - 1) for root in margins(product)) < 1e-13


def test_margins_at_zero_and_at_the_minimum():
    assert margins(0.0) == [0.0]
    least = (-np.linspace(1.2, 1.3, 100_001) / (1 + np.exp(np.linspace(1.2, 1.3, 100_001)))).min()
    assert margins(least * (1 + 1e-6)) == pytest.approx([1.27846], abs=1e-4)  # rounded to below it
    assert margins(-1e-300)[0] == pytest.approx(2e-300, rel=1e-12)


# Through the layers.


class Reused(nn.Module):
    """One LeakyReLU used twice and a flattening without a module: still a chain."""

    def __init__(self, *, image_shape, num_classes):
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, 2, 1, bias=False)
        self.second = nn.Conv2d(12, 16, 3, 2, 1, bias=False)
        self.act = nn.LeakyReLU(0.3, inplace=True)
        self.head = nn.Linear(16 * 4 * 4, 1, bias=False)

    def forward(self, x):
        return self.head(torch.flatten(self.act(self.second(self.act(self.first(x)))), 1))


def victim_of(model, image_shape=(3, 16, 16), dtype=torch.float64):
    if isinstance(model, type):
        model = build(model, image_shape=image_shape, num_classes=10, seed=0)
    return Victim(model.to(dtype), mean=(0.5,) * 3, std=(0.25,) * 3)


def psnr(result, task):
    images = task.observation.victim.denormalize(result.images[0])
    return float(-10 * (images.clamp(0, 1) - task.images).square().mean().log10())


@pytest.mark.parametrize(
    ("model", "size", "least"), [(FCN3, 32, 100), (FCN3Leaky, 32, 100), (Reused, 16, 100), (CNN6, 16, 80)]
)
@pytest.mark.parametrize("index", [7, 60])
def test_reconstructs_the_image(model, size, least, index, capture):
    task = capture((index,), size=size, rate=None, dtype=torch.float64, model=model, give_labels=False)
    attack = RGAP()
    result = attack.run([task.observation])
    assert psnr(result, task) > least
    assert result.labels.item() == task.labels.item() % 2
    assert result.cost.item() < 1e-9
    assert result.gradient_evaluations == 2
    right = attack.reports[0]
    assert [r.layer for r in right] == [layer.name for layer in chain(task.observation.victim, (3, size, size))[::-1]
                                        if isinstance(layer.module, nn.Conv2d | nn.Linear)]  # fmt: skip


@pytest.mark.parametrize("sign", [1, -1])
def test_a_leaky_relu_on_the_logit_hides_nothing(sign, capture):
    """On either side of zero, where its slope is 1 or a fifth, and for labels that agree with the logit and not."""
    model = build(FCN3Leaky, image_shape=(3, 16, 16), num_classes=10, seed=0).double()
    with torch.no_grad():
        model.fc3.weight.mul_(sign)
    victim, agree = Victim(model, mean=(0.5,) * 3, std=(0.25,) * 3), set()
    for index in (0, 10, 20, 30):
        task = capture((index,), size=16, rate=None, victim=victim, give_labels=False)
        logit, label = float(victim.logits(victim.parameters, victim.normalize(task.images))), task.labels.item() % 2
        assert logit * sign < 0
        agree.add((logit > 0) == bool(label))
        result = RGAP().run([task.observation])
        assert psnr(result, task) > 100
        assert result.labels.item() == label
    assert agree == {True, False}


def test_balanced_equations_lose_fewer_digits(capture):
    task = capture(TASK, size=16, rate=None, model=CNN6)
    plain, balanced = (RGAP(balanced=balanced).run([task.observation]) for balanced in (False, True))
    assert plain.images.dtype == balanced.images.dtype == torch.float32
    assert psnr(plain, task) > 25
    assert psnr(balanced, task) > 90


@each_convolution
def test_balancing_changes_nothing_where_all_equations_can_hold(spec):
    layer, _, z, k, g = convolution(spec)
    plain, balanced = (reconstruct_input(layer, z, 1e-3 * k, 1e-3 * g, balanced) for balanced in (False, True))
    assert plain.rank == balanced.rank
    assert relative(plain.input, balanced.input) < 1e-8


def test_k_equals_autograds_gradient_at_every_layer(capture):
    task = capture(TASK, size=16, rate=None, dtype=torch.float64, model=Reused)
    victim = task.observation.victim
    layers = chain(victim, (3, 16, 16))
    value = victim.normalize(task.images).requires_grad_()
    values = [value]
    for layer in layers:
        value = layer.module(value.reshape(1, *layer.input_shape) * 1)  # a copy, for one layer works in place
        values.append(value)
    ks = torch.autograd.grad(nn.functional.softplus(value).sum(), values)
    for layer, x, k_out, k_in in zip(layers, values[:-1], ks[1:], ks[:-1], strict=True):
        found = back(layer.module, x.detach()[0].reshape(layer.input_shape), k_out[0])
        torch.testing.assert_close(found, k_in[0].reshape(layer.input_shape), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("confidence", "low", "high"), [(1, 0.02, 0.8), (100, 2, 30)], ids=["untrained", "confident"])
def test_the_twin_whose_pixels_fit_is_taken(confidence, low, high, capture):
    """Where the label agrees with the prediction, two multiples of one image have the same gradient."""
    model = build(FCN3, image_shape=(3, 16, 16), num_classes=10, seed=0).double()
    with torch.no_grad():
        model.fc3.weight.mul_(confidence)
    victim = Victim(model, mean=(0.5,) * 3, std=(0.25,) * 3)
    seen = 0
    for index in range(0, 80, 10):
        task = capture((index,), size=16, rate=None, victim=victim)
        x = victim.normalize(task.images)
        m = float(victim.logits(victim.parameters, x)) * (2 * (task.labels.item() % 2) - 1)
        if not low < m < high:
            continue
        seen += 1
        attack = RGAP(restarts=1)
        result = attack.run([task.observation])
        assert relative(result.images[0], x) < 1e-8
        assert relative(attack.reports[0][-1].input, x[0].flatten()) < 1e-8
        (other,) = [root for root in margins(-m / (1 + math.exp(m))) if abs(root / m - 1) > 1e-6]
        attack.begin([task.observation])
        assert attack.cost(x[None] * other / m, task.labels[None]).item() < 1e-9  # the cost could not have told
    assert seen


def test_restarts_take_the_two_labels_in_turn(capture):
    task = capture(TASK, size=16, rate=None, dtype=torch.float64, model=FCN3)
    attack = RGAP(restarts=3)
    attack.begin([task.observation])
    images, labels = (attack.session.stage.variables["x"], attack.session.stage.fixed["y"])
    assert labels.flatten().sort().values.tolist() in ([0, 0, 1], [0, 1, 1])
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[1])
    assert attack.reports[0] is attack.reports[2]
    residuals = [max(layer.residual for layer in reports) for reports in attack.reports]
    assert min(residuals) < 1e-12
    assert max(residuals) > 0.1  # the wrong label contradicts itself below the last layer


@pytest.mark.parametrize("broken", [0.0, torch.inf])
def test_an_empty_update_gives_an_empty_image(broken, capture):
    observation = capture(TASK, size=16, rate=None, dtype=torch.float64, model=FCN3).observation
    attack = RGAP()
    result = attack.run([replace(observation, update={n: g * broken for n, g in observation.update.items()})])
    assert not result.images.any()
    assert attack.reports == [[], []]


def test_a_layer_whose_gradient_is_zero_ends_in_no_error(capture):
    observation = capture(TASK, size=16, rate=None, dtype=torch.float64, model=FCN3).observation
    for zero in observation.update:
        update = {n: g * 0 if n == zero else g for n, g in observation.update.items()}
        assert RGAP().run([replace(observation, update=update)]).images.isfinite().all()


# Which layer does not determine its input.


def layer_by_layer(model, size=32):
    """Every convolution's report from its true output and gradients, first to last."""
    photo = Photos(split="tune", size=size)[0][0].double()[None]
    victim = victim_of(model, (3, size, size))
    layers = chain(victim, (3, size, size))
    values = [victim.normalize(photo).requires_grad_()]
    for layer in layers:
        layer.module.requires_grad_(True)
        values.append(layer.module(values[-1]))
    loss = nn.functional.softplus(values[-1]).sum()
    for layer, z in zip(layers, values[1:], strict=True):
        if isinstance(layer.module, nn.Conv2d):
            k, g = torch.autograd.grad(loss, [z, layer.module.weight], retain_graph=True)
            layer.module.requires_grad_(False)
            yield layer, (z[0].detach(), k[0], g)


@pytest.mark.slow
def test_the_second_convolution_of_cnn6_d_is_deficient():
    layers = {layer.name: (layer, given) for layer, given in layer_by_layer(CNN6d)}
    layer, (z, k, g) = layers["conv2"]
    report = reconstruct_input(layer, z, k, g)
    # For each pair of outputs, a combination of gradient rows is one of weight rows: 20^2 equations say nothing new.
    # And four of the nine taps meet only the 64 pixels of odd row and column: 80 rows of K of rank 64, per channel.
    assert (report.unknowns, report.gradient_equations, report.weight_equations) == (12 * 17**2, 12 * 180, 20 * 81)
    assert report.rank == 12 * 180 + 20 * 81 - 20**2 - 12 * (80 - 64)
    assert report.rank < report.unknowns
    assert report.residual < 1e-10


@pytest.mark.slow
def test_every_convolution_of_cnn6_determines_its_input():
    reports = [reconstruct_input(layer, *given) for layer, given in layer_by_layer(CNN6)]
    assert len(reports) == 6
    assert all(report.rank == report.unknowns for report in reports)


def test_a_layer_that_does_not_determine_its_input_is_named(capture):
    class Thin(nn.Sequential):
        def __init__(self, *, image_shape, num_classes):
            head = nn.Linear(2 * 8 * 8, 1, bias=False)
            super().__init__(nn.Conv2d(3, 2, 3, 2, 1, bias=False), nn.LeakyReLU(0.2), nn.Flatten(), head)

    task = capture(TASK, size=16, rate=None, dtype=torch.float64, model=Thin)
    with pytest.warns(Notice, match="the layer 0 does not determine its input") as said:
        RGAP().run([task.observation])
    assert all("\n" not in str(w.message) for w in said)


# Refusals.


def sequence(*layers):
    return nn.Sequential(*layers)


def conv(bias=False, **options):
    return nn.Conv2d(3, 4, 3, padding=options.pop("padding", 1), bias=bias, **options)


def head(features=4 * 16 * 16, out=1, bias=False):
    return nn.Sequential(nn.Flatten(), nn.Linear(features, out, bias=bias))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = conv(), nn.Conv2d(4, 4, 3, padding=1, bias=False), head()

    def forward(self, x):
        x = self.first(x)
        return self.head(x + self.second(x))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1, bias=False), head(3 * 16 * 16)

    def forward(self, x):
        return self.head(self.conv(self.conv(x)))


class Hidden(nn.Module):
    """A function that is no module."""

    def __init__(self, last=False):
        super().__init__()
        self.conv, self.head, self.last = conv(), head(), last

    def forward(self, x):
        return self.head(self.conv(x)).sigmoid() if self.last else self.head(torch.relu(self.conv(x)))


class NoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3 * 16 * 16, 1))

    def forward(self, x):
        return x.flatten(1) @ self.weight


class PerRow(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows, self.head = nn.Linear(16, 16, bias=False), head(3 * 16 * 16)

    def forward(self, x):
        return self.head(self.rows(x))


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (sequence(conv(), nn.ReLU(), head()), ["layer 1 ", "ReLU", "inverted"]),
        (sequence(conv(), nn.LeakyReLU(0.0), head()), ["layer 1 ", "LeakyReLU", "slope"]),
        (sequence(conv(), nn.AvgPool2d(2), head(4 * 8 * 8)), ["layer 1 ", "AvgPool2d", "inverted"]),
        (sequence(conv(), nn.BatchNorm2d(4), head()), ["layer 1 ", "BatchNorm2d", "inverted"]),
        (sequence(conv(), nn.LeakyReLU(), head(bias=True)), ["layer 2.1 ", "Linear", "bias"]),
        (sequence(conv(bias=True), head()), ["layer 0 ", "Conv2d", "bias"]),
        (sequence(nn.Conv2d(3, 6, 3, groups=3, bias=False), head(6 * 14 * 14)), ["layer 0 ", "group"]),
        (sequence(conv(padding_mode="circular"), head()), ["layer 0 ", "zeros"]),
        (sequence(conv(padding="same"), head()), ["layer 0 ", "padded"]),
        (sequence(conv(), head(out=10)), ["layer 1.1 ", "Linear", "one logit"]),
        (Residual(), ["layer head.0 ", "residual"]),
        (Twice(), ["layer conv ", "twice"]),
        (Hidden(), ["layer head.0 ", "output before it"]),
        (Hidden(last=True), ["layer head.1 ", "one logit"]),
        (NoLayers(), ["layer model ", "NoLayers"]),
        (PerRow(), ["layer rows ", "vector"]),
        (ConvNet, ["layer body.0 ", "Conv2d", "bias"]),
        (ResNet18, ["layer bn1 ", "BatchNorm2d"]),
    ],
    ids=lambda v: "" if isinstance(v, list) else getattr(v, "__name__", type(v).__name__),
)
def test_refuses_a_victim_and_names_its_first_offending_layer(model, names, capture):
    victim = victim_of(model)
    observation = capture(TASK, size=16, rate=None, victim=victim).observation
    with pytest.raises(InputError) as refusal:
        RGAP().begin([observation])
    assert all(name in str(refusal.value) for name in names), refusal.value
    assert "\n" not in str(refusal.value)


def test_refuses_more_than_one_image(capture):
    observation = capture((7, 60), size=16, rate=None, model=FCN3).observation
    with pytest.raises(InputError, match="batches of 1"):
        RGAP().begin([observation])
