"""SPEAR: exact factors of synthetic updates, exact images of ReLU victims, and a right certificate."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from attacks.closed_form.sparse_factors import bases, low_rank, orthogonal
from attacks.engine.half_precision import in_single_precision
from attacks.spear import SPEAR
from benchmark.registry import open_defense
from benchmark.scoring.score import assign, score
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import Client, capture_task
from victims.client import LocalTraining
from victims.data.photos import Photos
from victims.errors import InputError, Notice
from victims.models.fcn import FCN
from victims.modules import build
from victims.victim import Victim

IMAGES = (3, 50, 90, 41)
EXACT = 60  # dB


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def victim_of(make, dtype=torch.float32, seed=0):
    data = Photos(split="tune")
    net = build(make, image_shape=data.image_shape, num_classes=10, seed=seed).to(dtype)
    return Victim(net, mean=data.mean, std=data.std)


def take(victim=None, indices=IMAGES, **client):
    return capture_task(
        victim or victim_of(partial(FCN, "200")), Photos(split="tune"), Batch("t", indices), Client(**client)
    )


def of_defense(text):
    return {"defense": open_defense(text), "adapt": False}


def attacked(task, observation=None, **options):
    """The reconstruction, PSNR and certificate of every image of the task."""
    found = SPEAR(**options).run([observation or task.observation])
    pixels = found.pixels[0]
    order = assign(pixels, task.images)
    return found, torch.tensor(score(pixels, task.images)[1]["psnr"]), found.certified[0][order]


# The factors.


@pytest.mark.parametrize(("b", "m", "n"), [(1, 12, 7), (2, 40, 9), (5, 80, 30), (9, 150, 20)])
def test_factors_are_those_of_the_product(b, m, n):
    generator = draws(b)
    mask = torch.rand(m, b, generator=generator) < 0.5
    dZ = torch.randn(m, b, generator=generator, dtype=torch.float64) * mask
    X = torch.randn(b, n, generator=generator, dtype=torch.float64)
    low = low_rank(dZ @ X, b, torch.finfo(torch.float64).eps)
    torch.testing.assert_close(low.L @ low.R, dZ @ X)
    assert low.exact
    *_, Q = bases(low, 4096, draws())
    d = torch.linalg.solve(Q, low.L.T @ dZ.sum(1))  # the gradient of the bias is the sum of the columns
    found, x = low.L @ Q * d, torch.linalg.solve(Q, low.R) / d[:, None]
    order = [int((found - dZ[:, [k]]).norm(dim=0).argmin()) for k in range(b)]
    torch.testing.assert_close(found[:, order], dZ, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(x[order], X, rtol=1e-9, atol=1e-10)


def test_candidates_are_orthogonal_to_the_drawn_rows():
    rows = torch.randn(50, 4, 5, generator=draws(), dtype=torch.float64)
    q = orthogonal(rows)
    torch.testing.assert_close(q.norm(dim=1), torch.ones(50, dtype=torch.float64))
    assert (rows @ q[..., None]).abs().max() < 1e-10


def test_noise_is_measured_and_no_noise_is_rounding():
    generator = draws()
    g = torch.randn(300, 3, generator=generator, dtype=torch.float64) @ torch.randn(
        3, 200, generator=generator, dtype=torch.float64
    )
    noise = 1e-4 * torch.randn(300, 200, generator=generator, dtype=torch.float64)
    low = low_rank(g + noise, 3, torch.finfo(torch.float32).eps)
    assert low.noise == pytest.approx(1e-4, rel=0.1)
    assert not low.exact
    assert low_rank(g.float().double(), 3, torch.finfo(torch.float32).eps).exact
    assert len(low_rank(g, 5, torch.finfo(torch.float64).eps).s) == 3


@pytest.mark.parametrize(("m", "n", "b"), [(60, 64, 4), (120, 3072, 2), (400, 3072, 8), (100, 12000, 4)])
def test_zeros_are_zero_to_the_rounding_of_the_decomposition(m, n, b):
    """Of double precision; processors round differently, so one product alone may pass by luck."""
    generator = draws()
    for _ in range(10):
        dZ = torch.randn(m, b, generator=generator, dtype=torch.float64)
        dZ *= torch.rand(m, b, generator=generator) < 0.5
        low = low_rank(dZ @ torch.randn(b, n, generator=generator, dtype=torch.float64), b, 2.2e-16)
        q = low.L.T @ dZ / dZ.norm(dim=0)
        below = (low.L @ q).abs() <= low.zero(q.T).T
        assert torch.equal(below, dZ == 0)


# Whole batches.


class Functional(nn.Module):
    """ReLU as a function that works in place, behind a flatten."""

    def __init__(self, *, image_shape, num_classes):
        super().__init__()
        self.out, self.first = nn.Linear(150, num_classes), nn.Linear(3072, 150)

    def forward(self, x):
        return self.out(self.first(x.flatten(1)).relu_())


def dead(**shape):
    """A third of the neurons never fire, and another third always does."""
    net = FCN("210x30", **shape)
    with torch.no_grad():
        net.fc1.bias[:70], net.fc1.bias[70:140] = -1e3, 1e3
    return net


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [partial(FCN, "200"), partial(FCN, "120x40x30"), Functional, dead])
def test_a_batch_is_exact_and_certified(make, dtype):
    task = take(victim_of(make, dtype))
    found, psnr, certified = attacked(task)
    assert psnr.min() > EXACT
    assert certified.all()
    assert sorted(found.labels[0].tolist()) == sorted(task.labels.tolist())
    assert found.cost.item() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_update_in_half_precision_is_certified_by_its_own_rounding(dtype):
    task = take(victim_of(partial(FCN, "200"), dtype), IMAGES[:2])
    for observation in (task.observation, in_single_precision(task.observation)):
        _, psnr, certified = attacked(task, observation, draws=2**12)
        assert psnr.min() > 40
        assert certified.all()


def test_eight_images_are_exact_and_certified():
    _, psnr, certified = attacked(take(victim_of(partial(FCN, "400")), (3, 50, 90, 41, 7, 66, 80, 15)))
    assert psnr.min() > EXACT
    assert certified.all()


@pytest.mark.parametrize(
    "client",
    [
        of_defense("clipping:0.1:global"),
        {"local": LocalTraining(lr=0.1)},
        {"local": LocalTraining(lr=1e-3)},
        {"local": LocalTraining(lr=0.1), "know_lr": False},
    ],
    ids=["clipped", "a local step", "a small local step", "unknown learning rate"],
)
def test_a_scaled_update_is_as_good(client):
    _, psnr, certified = attacked(take(**client))
    assert psnr.min() > EXACT
    assert certified.all()


@pytest.mark.parametrize(
    "text",
    [
        "noise:0.001",
        "noise:0.1",
        "sparsification:0.5",
        "sparsification:0.9",
        "quantization:256",
        "clipping:0.1",
        "sign",
    ],
)
def test_a_changed_update_has_no_certificate(text):
    found, _, certified = attacked(take(**of_defense(text)))
    assert not certified.any()
    assert found.images.isfinite().all()


def test_little_noise_leaves_good_images_without_a_certificate():
    _, psnr, certified = attacked(take(victim_of(partial(FCN, "400")), **of_defense("noise:0.0001")))
    assert psnr.min() > 40
    assert not certified.any()


def permuted(observation, *, rows):
    """The first layer's update with its rows, or all of its entries, in another order."""
    update = dict(observation.update)
    order = torch.randperm(200, generator=draws())
    if rows:
        update["fc1.weight"], update["fc1.bias"] = update["fc1.weight"][order], update["fc1.bias"][order]
    else:
        g = update["fc1.weight"]
        update["fc1.weight"] = g.flatten()[torch.randperm(g.numel(), generator=draws())].reshape(g.shape)
    return replace(observation, update=update)


@pytest.mark.parametrize("rows", [False, True])
def test_a_permuted_update_has_no_certificate(rows):
    task = take()
    _, psnr, certified = attacked(task, permuted(task.observation, rows=rows), draws=4096)
    assert not certified.any()
    assert (psnr.min() > EXACT) == rows  # the factors do not depend on the order of neurons, but the certificate does


def test_no_certificate_where_another_model_made_the_update():
    task, other = take(), victim_of(partial(FCN, "200"), seed=1)
    assert not attacked(task, replace(task.observation, victim=other), draws=4096)[2].any()


def test_the_certificate_is_about_the_update_that_was_seen():
    shown = take(indices=(8, 30, 77, 60))
    found = SPEAR().run([shown.observation])
    assert found.certified.all()
    assert min(score(found.pixels[0], take().images)[1]["psnr"]) < 30


def test_equal_images_are_found_once_and_nothing_is_certified():
    task = take(indices=(3, 50, 3, 90))
    found, psnr, certified = attacked(task)
    assert torch.equal(found.images[0, 3], torch.zeros_like(found.images[0, 3]))
    assert (psnr > EXACT).tolist().count(True) == 3
    assert not certified.any()


def of_small_c():
    """A victim that sees pixels as they are, and whose neurons have about the same signs at images of any scale."""
    net = build(FCN, widths="200", image_shape=(3, 32, 32), num_classes=10, seed=0)
    net.fc1.bias.data *= 1e-3
    return Victim(net, mean=(0.0,) * 3, std=(1.0,) * 3)


class Changed(Photos):
    """The first image of the batch in another form."""

    def __init__(self, image):
        super().__init__(split="tune")
        self.image = image

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return (self.image if index == IMAGES[0] else image), label


def test_a_black_image_certifies_nothing():
    """It enters as zero, so that it is missing in dL/dW but not in dL/dc, which the other images take in."""
    data = Changed(torch.zeros(3, 32, 32))
    _, psnr, certified = attacked(capture_task(of_small_c(), data, Batch("t", IMAGES), Client()), draws=2**14)
    assert psnr.min() < EXACT
    assert not certified.any()


def test_proportional_images_certify_nothing():
    data = Changed(Photos(split="tune")[IMAGES[1]][0] / 2)
    _, psnr, certified = attacked(capture_task(of_small_c(), data, Batch("t", IMAGES), Client()), draws=2**14)
    assert psnr.min() < EXACT
    assert not certified.any()


@pytest.mark.parametrize("changed", ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"])
@pytest.mark.parametrize("factor", [0.0, 0.95])
def test_a_tensor_with_a_factor_of_its_own_certifies_nothing(changed, factor):
    """As clipping tensor by tensor leaves it: the factor of a layer's weight alone would be that of its images. With a
    small c, signs agree at images of any scale."""
    task = take(of_small_c())
    update = {name: g * (factor if name == changed else 1) for name, g in task.observation.update.items()}
    assert attacked(task)[2].all()
    assert not attacked(task, replace(task.observation, update=update), draws=4096)[2].any()


def test_two_classes_are_named_as_a_limit():
    """A victim of ten, of which the attacker is told two, is as good for the words."""
    with pytest.warns(Notice, match="nothing about the leak"):
        SPEAR().check(replace(take().observation, num_classes=2))


def test_few_neurons_certify_nothing():
    for width in (5, 8, 13):
        task = take(victim_of(partial(FCN, str(width))))
        assert not attacked(task, draws=4096)[2].any()


@pytest.mark.parametrize("width", [20, 30, 40])
def test_what_is_certified_is_exact_in_narrow_layers(width):
    count = 0
    for first in range(0, 40, 4):
        _, psnr, certified = attacked(
            take(victim_of(partial(FCN, str(width))), tuple(range(first, first + 4))), draws=4096
        )
        assert (psnr[certified] > EXACT).all()
        count += int(certified.sum())
    assert count > 0 or width == 20


def test_a_search_without_success_ends_and_certifies_nothing():
    found, _, certified = attacked(take(victim_of(partial(FCN, "100")), tuple(range(24))), draws=4096)
    assert found.images.isfinite().all()
    assert not certified.any()


class Failing(SPEAR):
    """Only the second start finds anything."""

    calls = 0

    def factors(self, *given):
        self.calls += 1
        found = super().factors(*given)
        return found if self.calls == 2 else replace(found, x=0 * found.x, agree=not found.agree)


def test_the_certificate_is_that_of_the_chosen_restart():
    found = Failing(restarts=3).run([take().observation])
    assert found.certified.all()
    assert found.cost.item() < 1e-4


# Refusals.


def activated(activation):
    def make(*, image_shape, num_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(3072, 50), activation, nn.Linear(50, num_classes))

    return make


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.LeakyReLU(), nn.GELU(), nn.Identity()])
def test_other_activations_are_refused(activation):
    with pytest.raises(InputError, match=r"no ReLU follows 1; .*--victim fcn:400"):
        SPEAR().run([take(victim_of(activated(activation))).observation])


def test_a_batch_as_large_as_the_layer_is_refused():
    with pytest.raises(InputError, match="lower --batch"):
        SPEAR().run([take(victim_of(partial(FCN, "4"))).observation])


def test_the_preset_of_a_run_takes_one_start():
    assert SPEAR().restarts == 1
    assert SPEAR(restarts=2).restarts == 2
    with pytest.raises(InputError, match="draws is 0"):
        SPEAR(draws=0)
