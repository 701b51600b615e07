"""Mixed precision against plain training steps under torch's autocast and GradScaler."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gibench
from benchmark.config import Config
from victims.amp import amp_gradient
from victims.data.photos import Photos
from victims.errors import InputError
from victims.losses.base import Own
from victims.models.convnet import ConvNet
from victims.models.resnet20 import ResNet20
from victims.modules import build
from victims.victim import Victim

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Normed(nn.Sequential):
    """One batch norm; after many of them a rounding that falls otherwise has become as large as all of them."""

    def __init__(self, **_) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(5), nn.Flatten(), nn.Linear(72, 10)
        )


CASES = {"convnet": (ConvNet, "eval"), "resnet20": (ResNet20, "eval"), "train": (Normed, "train")}


@pytest.fixture(scope="module")
def batch():
    return Photos(split="tune", size=32).batch((3, 50, 90))


def stepped(model, batch, amp, training=False):
    """The gradient of a training step as torch's documentation writes it, once the scaler has found its scale."""
    images, labels = batch
    model.train(training)
    scaler = torch.amp.GradScaler("cpu", enabled=amp == "fp16")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    while True:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=TYPES[amp]):
            loss = cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        found = {name: p.grad.clone() for name, p in model.named_parameters()}
        if all(g.isfinite().all() for g in found.values()):
            return found
        scaler.step(optimizer)
        scaler.update()


@pytest.mark.parametrize("amp", TYPES)
@pytest.mark.parametrize(("make", "mode"), CASES.values(), ids=CASES)
def test_the_update_is_the_gradient_of_a_plain_autocast_step(make, amp, mode, batch):
    model = build(make, image_shape=(3, 32, 32), num_classes=10, seed=0)
    update = gibench.capture(model, *batch, amp=amp, mode=mode).update
    expected = stepped(model, batch, amp, mode == "train")
    full = gibench.capture(model, *batch, mode=mode).update
    far = sum((update[name] - g).square().sum() for name, g in full.items()).sqrt()
    near = sum((update[name] - g).square().sum() for name, g in expected.items()).sqrt()
    assert all(g.dtype == torch.float32 for g in update.values())
    assert near < 0.05 * far


def linear(weight):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10, bias=False))
    nn.init.constant_(model[1].weight, weight)
    return model


def test_fp16_keeps_small_gradients_by_its_scale_and_large_ones_by_halving_it(batch):
    """At one image a class weight of 1e-6 or 1e6 scales the whole loss, beyond what fp16 can hold by itself."""
    images, labels = batch
    plain = gibench.capture(linear(0.0), images[:1], labels[:1]).update["1.weight"]
    for factor in (1e-7, 1e4):
        scaled = gibench.capture(
            linear(0.0), images[:1], labels[:1], amp="fp16", loss=lambda z, y, f=factor: f * cross_entropy(z, y)
        )
        torch.testing.assert_close(scaled.update["1.weight"] / factor, plain, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("amp", "tries"), [("fp16", 17), ("bf16", 1)])  # scales of 2^16 to 1, and none
def test_a_gradient_that_is_finite_at_no_scale_is_returned_as_it_is(amp, tries, batch):
    tried = []

    def spoiled(gradient):
        tried.append(gradient)
        assert len(tried) <= tries, "the scale is halved without end"
        return gradient * torch.nan

    def loss(logits, labels):
        logits.register_hook(spoiled)
        return cross_entropy(logits, labels)

    victim = Victim(linear(0.0), mean=(0.5,) * 3, std=(0.5,) * 3, loss=Own(loss))
    found = amp_gradient(victim, amp)(victim.parameters, *batch)
    assert all(g.isnan().all() for g in found.values())
    assert len(tried) == tries


def test_local_steps_are_in_mixed_precision_and_weights_stay_in_full(batch):
    model = build(ConvNet, image_shape=(3, 32, 32), num_classes=10, seed=0)
    trained = build(ConvNet, image_shape=(3, 32, 32), num_classes=10, seed=0)
    update = gibench.capture(model, *batch, lr=0.1, epochs=2, amp="bf16").update
    for _ in range(2):
        for name, g in stepped(trained, batch, "bf16").items():
            trained.get_parameter(name).data -= 0.1 * g
    for name, p in model.named_parameters():
        moved = (p - trained.get_parameter(name)).detach()
        torch.testing.assert_close(update[name], moved, rtol=1e-2, atol=1e-2 * float(moved.abs().max()))


def test_what_cannot_be_is_refused_in_one_line(batch):
    with pytest.raises(InputError, match=r"amp is 'fp8'; give one of none, bf16, fp16\."):
        gibench.capture(linear(0.0), *batch, amp="fp8")
    with pytest.raises(InputError, match="models in float32, not float64"):
        gibench.capture(linear(0.0).double(), *batch, amp="bf16")


def test_it_is_an_option_of_a_run_and_a_setting_of_its_rows():
    config = Config(amp="bf16", loss="focal:2", local_optimizer="adam", lr=0.1)
    client, identity = config.make_client(), config.identity()
    assert (client.amp, type(client.local.optimizer).__name__) == ("bf16", "Adam")
    assert (identity["amp"], identity["loss"], identity["local_optimizer"]) == ("bf16", "focal:2", "adam")
    assert type(config.make_victim(config.make_data()).criterion).__name__ == "Focal"
