"""Batch statistics: the layer against torch's, the levels an attacker may know against the layer's own buffers."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import update_bn

from attacks.engine.gradients import victim_gradients
from attacks.engine.regularizers import statistics_distance
from victims.batch_norm import BatchNorm, batch_norms, use_batch_statistics
from victims.client import calibrate, known_statistics
from victims.data.photos import Photos
from victims.errors import InputError
from victims.models.lenet import LeNet
from victims.models.sigmoid_resnet10 import SigmoidResNet10
from victims.models.sigmoid_resnet18 import SigmoidResNet18
from victims.modules import build
from victims.victim import Victim, batch_statistics, gradient

SHAPE = {"image_shape": (3, 16, 16), "num_classes": 10}
STATS = {"mean": (0.5, 0.4, 0.3), "std": (0.3, 0.2, 0.25)}


@pytest.fixture
def model():
    return build(SigmoidResNet10, **SHAPE, seed=0).double()


@pytest.fixture
def pixels():
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_single_value_of_a_channel_is_refused_as_by_torch():
    torchs = nn.BatchNorm2d(4)
    for shape in ((1, 4, 1, 1), (1, 4)):
        with pytest.raises(InputError, match="one value per channel"):
            BatchNorm(torchs)(torch.rand(shape))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        torchs(torch.rand(1, 4, 1, 1))
    assert BatchNorm(torchs)(torch.rand(1, 4, 1, 2)).any()


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"bias": False}], ids=str)
@pytest.mark.parametrize("shape", [(6, 4), (2, 4, 7), (3, 4, 5, 6)])
def test_layer_is_torchs(options, shape):
    make = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    torchs = make(4, **options).double()
    for p in torchs.parameters():
        nn.init.normal_(p)
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(BatchNorm(torchs)(x), torchs.train()(x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"bias": False}], ids=str)
def test_a_victim_with_such_a_layer_has_the_gradient_of_torch(options, training, pixels):
    make = lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, **options), nn.Flatten(), nn.LazyLinear(10))  # noqa: E731
    net, labels = build(make, seed=0).double(), torch.arange(5)
    net(pixels)  # so that running statistics are no longer (0, 1)
    victim = Victim(net, **STATS, training=training)
    cross_entropy(net.train(training)(victim.normalize(pixels)), labels).backward()
    found = gradient(victim, victim.normalize(pixels), labels)
    stacked = victim_gradients(victim, victim.normalize(pixels)[None], labels[None])
    for name, p in net.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(stacked[name][0], p.grad, rtol=1e-8, atol=1e-12)


def test_replacing_moves_no_draws_of_the_caller():
    class Own(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x)

    before, net = torch.get_rng_state(), nn.Sequential(Own(4))
    use_batch_statistics(net)
    assert isinstance(net[0], BatchNorm)
    assert torch.equal(before, torch.get_rng_state())


def test_replacing_keeps_names_and_outputs(model, pixels):
    replaced = copy.deepcopy(model)
    use_batch_statistics(replaced)
    assert list(dict(replaced.named_parameters())) == list(dict(model.named_parameters()))
    assert list(batch_norms(replaced)) == list(batch_norms(model))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in replaced.modules())
    torch.testing.assert_close(replaced(pixels), model.train()(pixels))


def test_the_activation_in_timms_layers_stays():
    model = build(timm.create_model, model_name="test_efficientnet", seed=0).double().train()
    replaced = copy.deepcopy(model)
    use_batch_statistics(replaced)
    assert list(dict(replaced.named_parameters())) == list(dict(model.named_parameters()))
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(replaced(images), model(images))


def test_statistics_are_those_of_every_layers_input(model, pixels):
    victim = Victim(model, **STATS, training=True)
    x = victim.normalize(pixels)
    stem = model.stem[0](x)
    found = batch_statistics(victim, x)
    assert len(found) == 1 + 4 * 3
    for channel in range(32):
        values = stem[:, channel].flatten()
        assert found["stem.1"][0, channel].item() == pytest.approx(values.mean().item(), rel=1e-9, abs=1e-12)
        variance = ((values - values.mean()) ** 2).mean().item()
        assert found["stem.1"][1, channel].item() == pytest.approx(variance, rel=1e-9)


def test_recovered_equals_exact_and_comes_from_the_buffers_torch_would_share(model, pixels):
    victim = Victim(model, **STATS, training=True)
    exact, recovered = (known_statistics(victim, pixels, level) for level in ("exact", "recovered"))
    for name, statistics in exact.items():
        torch.testing.assert_close(recovered[name], statistics, rtol=1e-7, atol=1e-9)
    shared = copy.deepcopy(model).train()
    shared(victim.normalize(pixels))
    layer = shared.stem[1]
    before = victim.running["stem.1"]
    after = torch.stack([layer.running_mean, layer.running_var])
    mean = (after[0] - 0.9 * before[0]) / 0.1
    torch.testing.assert_close(recovered["stem.1"][0], mean, rtol=1e-7, atol=1e-9)
    n = 5 * 16 * 16
    torch.testing.assert_close(
        recovered["stem.1"][1] * n / (n - 1), (after[1] - 0.9 * before[1]) / 0.1, rtol=1e-7, atol=0
    )


def test_levels(model, pixels):
    victim = Victim(model, **STATS, training=True)
    assert known_statistics(victim, pixels, "none") is None
    running = known_statistics(victim, pixels, "running")
    for statistics in running.values():  # of a model that has seen nothing
        assert not statistics[0].any()
        assert (statistics[1] == 1).all()
    assert not known_statistics(victim, pixels, "exact")["stem.1"].requires_grad


def test_levels_that_a_victim_cannot_have_are_refused_in_one_line(model, pixels):
    plain = Victim(build(LeNet, **SHAPE, seed=0).double(), **STATS)
    for level in ("running", "recovered", "exact"):
        with pytest.raises(InputError, match="--bn none") as refusal:
            known_statistics(plain, pixels, level)
        assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match="--victim-mode train"):
        known_statistics(Victim(model, **STATS), pixels, "recovered")


def test_calibrated_running_statistics_are_near_those_of_the_images():
    data = Photos(split="train", size=16)
    model = build(SigmoidResNet10, **SHAPE, seed=0)
    before = {name: p.clone() for name, p in model.named_parameters()}
    calibrate(model, data, data.preprocessing)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    victim = Victim(model, mean=data.mean, std=data.std, training=True)
    images, _ = data.batch(range(len(data)))
    exact = batch_statistics(victim, victim.normalize(images))["stem.1"]
    assert (victim.running["stem.1"] - exact).abs().max() < 0.1 * exact.abs().max()
    with pytest.raises(InputError, match="--victim-weights random"):
        calibrate(build(LeNet, **SHAPE, seed=0), data, data.preprocessing)


def pooled():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3))


@pytest.mark.parametrize("count", [2, 64, 65, 130, 192])
def test_every_calibrating_image_counts_the_same(count):
    """65 images are no batch of 64 and one of a single image."""
    data = Photos(split="train", size=8)
    data.ids = data.ids[:count]
    model = pooled()
    calibrate(model, data, data.preprocessing)
    colors = data.preprocessing.normalize(data.batch(range(count))[0]).mean((2, 3))
    torch.testing.assert_close(model[2].running_mean, colors.mean(0), rtol=0.03, atol=0.01)
    parts = colors.tensor_split({65: 2, 130: 3, 192: 3}.get(count, 1))
    torch.testing.assert_close(model[2].running_var, torch.stack([part.var(0) for part in parts]).mean(0))
    if count % 64 == 0:
        same = pooled()
        update_bn(data.preprocessing.normalize(data.batch(range(count))[0]).split(64), same)
        assert all(torch.equal(one, other) for one, other in zip(model.buffers(), same.buffers(), strict=True))


def test_a_single_image_that_cannot_calibrate_is_one_line():
    data = Photos(split="train", size=8)
    data.ids = data.ids[:1]
    calibrate(nn.Sequential(nn.BatchNorm2d(3)), data, data.preprocessing)  # 64 positions are enough
    with pytest.raises(InputError, match="two train images or more") as refusal:
        calibrate(pooled(), data, data.preprocessing)
    assert "\n" not in str(refusal.value)


def test_sigmoid_resnet18_has_no_relu_and_the_weights_of_resnet18():
    from victims.models.resnet18 import ResNet18

    sigmoid, plain = (build(make, **SHAPE, seed=0) for make in (SigmoidResNet18, ResNet18))
    assert not any(isinstance(m, nn.ReLU) for m in sigmoid.modules())
    assert sum(isinstance(m, nn.Sigmoid) for m in sigmoid.modules()) == sum(
        isinstance(m, nn.ReLU) for m in plain.modules()
    )
    for ours, theirs in zip(sigmoid.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


class Auxiliary(nn.Module):
    """A head that is not called, and one layer under two names of which only one is."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), self.norm)
        self.aux = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 14 * 14, 10))

    def forward(self, x):
        return self.head(self.body(x))


@pytest.mark.parametrize(("training", "level"), [(False, "running"), (True, "running"), (True, "recovered")])
def test_a_layer_that_is_not_called_has_no_statistics(training, level, pixels):
    net = build(Auxiliary, seed=0).double()
    victim = Victim(net, **STATS, training=training)
    (name,) = known = known_statistics(victim, pixels, level)
    assert name in ("norm", "body.1")
    if level == "running":
        expected = torch.stack([net.norm.running_mean, net.norm.running_var])
    else:
        inputs = net.body[0](victim.normalize(pixels)).transpose(0, 1).flatten(1)
        expected = torch.stack([inputs.mean(1), inputs.var(1, correction=0)])
    torch.testing.assert_close(known[name], expected)
    statistics = {name: known[name][None]}
    assert statistics_distance({n: s[None] for n, s in batch_statistics(victim, victim.normalize(pixels)).items()},
                               statistics).isfinite().all()  # fmt: skip
