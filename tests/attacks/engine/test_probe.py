"""What probing finds, in which precision and on which images, and what it costs."""

import warnings
from functools import partial

import pytest
import torch
from torch import nn

from attacks.engine import probe as probing
from attacks.engine.compiled import Compiler
from attacks.engine.layer_gradients import LinearGradient
from attacks.engine.probe import Probe, find_layers, find_paths, try_paths, vectorizes
from attacks.ig import IG
from tests.computed import Computed
from victims.errors import InputError, Notice
from victims.losses.base import as_loss
from victims.models.densenet121 import DenseNet121
from victims.models.resnet18 import ResNet18
from victims.models.sigmoid_resnet10 import SigmoidResNet10
from victims.modules import build
from victims.victim import Victim


def victim_of(model, training=False):
    return Victim(model, mean=(0.5,) * 3, std=(0.2,) * 3, training=training)


def resnet(size):
    return victim_of(build(ResNet18, image_shape=(3, size, size), num_classes=10, seed=0))


@pytest.fixture
def doubles(monkeypatch):
    """The probes that went on in float64."""
    seen = []
    real = Probe.double.func
    monkeypatch.setattr(Probe, "double", property(lambda self: seen.append(self) or real(self)))
    return seen


def test_what_is_set_up_costs_the_same_at_every_size(capture):
    """All that is computed before the first step: paths, notices, and the session.

    It is bounded by the weights: the plain gradient and the factored one of two batches are differentiated, with two
    costs each, and the gradients at noise and gray are compared.
    """
    costs = {}
    for size in (32, 64):
        observation = capture((3,), size=size, rate=None, model=ResNet18).observation
        with Computed() as setting_up:
            IG(steps=4, restarts=1).begin([observation])
        costs[size] = setting_up.numbers
    assert costs[64] < 1.01 * costs[32]
    assert costs[32] < 80 * observation.victim.parameter_counts()[1]


class FirstImage(nn.Sequential):
    """Every image sees the first one of its batch."""

    def forward(self, x):
        return super().forward(x + x[:1].sin())


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_model_whose_images_see_each_other_has_no_factored_gradient(batch_size):
    assert find_layers(Probe(victim_of(FirstImage(nn.Flatten(), nn.Linear(48, 10))), (3, 4, 4), batch_size)) is None


def test_the_work_of_a_step_is_that_at_the_tasks_size():
    for size in (32, 64):
        found = find_layers(Probe(resnet(size), (3, size, size), 1))
        x = found.victim.mean.new_zeros(1, 1, 3, size, size)
        at_size = found.gradient(x, torch.zeros(1, 1, dtype=torch.long)).work(1)
        assert (found.spared, found.multiplications) == at_size


@pytest.mark.parametrize("model", [ResNet18, SigmoidResNet10])
def test_a_sound_victim_is_probed_in_its_own_precision(model, doubles):
    victim = victim_of(build(model, image_shape=(3, 32, 32), num_classes=10, seed=0))
    assert vectorizes(Probe(victim, (3, 32, 32), 2))
    assert find_layers(Probe(victim, (3, 32, 32), 2)) is not None
    assert not doubles


def test_what_a_model_writes_over_the_output_of_a_layer_does_not_count():
    """As torchvision's DenseNet does with a ReLU, and a clamp whose bound no probing image reaches."""
    model = build(DenseNet121, image_shape=(3, 32, 32), num_classes=10, seed=0)
    assert find_layers(Probe(victim_of(model), (3, 32, 32), 1)) is not None

    class Clamps(nn.Sequential):
        def forward(self, x):
            return self[1](self[0](x).clamp_(-2, 2).flatten(1))

    torch.manual_seed(0)
    victim = victim_of(Clamps(nn.Conv2d(3, 4, 3), nn.Linear(144, 10)))
    layers = find_layers(Probe(victim, (3, 8, 8), 2))
    x = (5 * torch.randn(2, 2, 3, 8, 8)).requires_grad_()
    y = torch.tensor([[1, 2], [3, 4]])
    plain = partial(probing.victim_gradients, victim, vectorized=False)
    torch.testing.assert_close(*(probing.cost_gradient(path, victim, x, y) for path in (layers.gradient, plain)))


class FromFour(nn.Sequential):
    """Images see each other in batches of four and more."""

    def forward(self, x):
        return super().forward(x - x.mean(0, keepdim=True) if len(x) > 3 else x)


def test_a_model_that_mixes_larger_batches_alone_is_not_factored():
    assert find_layers(Probe(victim_of(FromFour(nn.Flatten(), nn.Linear(48, 10))), (3, 4, 4), 1)) is None


def test_a_loss_that_is_zero_for_one_class_does_not_let_a_wrong_path_pass():
    victim = victim_of(build(LayerNormed, seed=0))
    victim.criterion = as_loss(lambda logits, y: (nn.functional.cross_entropy(logits, y, reduction="none") * y).mean())
    with pytest.warns(Notice, match="disagree"):
        assert not vectorizes(Probe(victim, (3, 16, 16), 1))


def test_a_net_that_hardly_sees_images_of_low_contrast_is_probed_where_it_sees_them():
    class Threshold(nn.Sequential):
        def forward(self, x):
            return super().forward(nn.functional.threshold(x, 6.0, 0.0))

    probe = Probe(victim_of(Threshold(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10))), (3, 8, 8), 1)
    assert probe.exact.any()
    assert find_layers(probe) is not None


class LayerNormed(nn.Sequential):
    """torch's layer norm, whose second derivative is wrong under vmap."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.LayerNorm([4, 14, 14]), nn.Sigmoid(), nn.Flatten(), nn.Linear(784, 10))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_wrong_second_derivative_is_found_in_either_precision(dtype):
    victim = victim_of(build(LayerNormed, seed=0).to(dtype))
    with pytest.warns(Notice, match="disagree"):
        assert not vectorizes(Probe(victim, (3, 16, 16), 2))


@pytest.mark.parametrize("error", [1e-3, 1e-5])
def test_a_layer_that_is_a_little_wrong_is_not_factored(error, monkeypatch):
    victim = victim_of(nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Sigmoid(), nn.Linear(8, 10)))
    assert find_layers(Probe(victim, (3, 8, 8), 2)) is not None
    real = LinearGradient.gradients
    monkeypatch.setattr(LinearGradient, "gradients", lambda self: (1 + error) * real(self))
    assert find_layers(Probe(victim, (3, 8, 8), 2)) is None


class Chaotic(nn.Module):
    """In float32 the rounding of the first layer is amplified until few digits are left."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(48, 48) for _ in range(5))
        self.classifier = nn.Linear(48, 10)

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers:
            x = torch.sin(12 * layer(x))
        return self.classifier(x)


def test_rounding_costs_an_ill_conditioned_net_no_path(doubles):
    victim = victim_of(build(Chaotic, seed=0))
    probe = Probe(victim, (3, 4, 4), 2)
    assert find_layers(probe) is not None
    assert doubles


class Refuses(nn.Module):
    """Batches of three; and whoever counts them."""

    def __init__(self, *, image_shape, num_classes):
        super().__init__()
        self.linear = nn.Linear(3, num_classes)

    def forward(self, x):
        if len(x) > 2:
            raise ValueError("too many")
        return self.linear(x.mean((2, 3)))


def test_a_batch_that_a_model_refuses_is_refused_before_the_first_step(capture):
    observation = capture((3, 50), size=16, model=Refuses).observation
    find_paths(observation, None, Compiler("off", 60))
    object.__setattr__(observation, "batch_size", 3)
    with pytest.raises(InputError, match=r"for batches of 3 .* \(ValueError: too many\)"):
        find_paths(observation, None, Compiler("off", 60))


@pytest.mark.parametrize(("batch", "again"), [(1, False), (2, False), (3, True)])
def test_no_path_is_taken_twice(batch, again, monkeypatch):
    """Plain and factored in the probe; with more images than it has, again with all of them."""
    victim = victim_of(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)))
    probe = Probe(victim, (3, 8, 8), batch)
    layers = find_layers(probe)
    sizes = []
    real = probing.cost_gradient
    monkeypatch.setattr(probing, "cost_gradient", lambda *case: sizes.append(case[2].shape[1]) or real(*case))
    try_paths(probing.GradientPaths(victim, layers=layers), probe)
    assert set(sizes) == ({batch} if again else set())


def test_torch_func_and_layers_share_the_plain_gradient(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        probe = Probe(resnet(16), (3, 16, 16), 1)
        plain = []
        real = probing.victim_gradients
        monkeypatch.setattr(
            probing, "victim_gradients", lambda *a, **o: plain.append(o.get("vectorized", True)) or real(*a, **o)
        )
        assert find_layers(probe) is not None
        assert vectorizes(probe)
    assert plain.count(False) == 1
