"""Which gradient path is chosen, and that the result of an attack names it."""

import pytest
import torch
from torch import nn

from attacks.engine import compiled, probe
from attacks.engine.compiled import Compiler
from attacks.engine.gradients import CPU_CANDIDATES, CPU_FACTORED, CPU_IMAGES, GradientPaths
from attacks.engine.probe import find_paths
from attacks.gi import GI
from attacks.gias import GIAS
from attacks.ig import IG
from victims.errors import Notice
from victims.models.convnet import ConvNet
from victims.models.lenet import LeNet
from victims.models.resnet18 import ResNet18
from victims.models.sigmoid_resnet10 import SigmoidResNet10


def found_for(observation, local=None, mode="auto"):
    return find_paths(observation, local, Compiler(mode, 60))


@pytest.mark.parametrize(
    ("model", "training", "one", "many"),
    [
        (LeNet, False, "plain", "factored"),
        (ResNet18, False, "factored", "factored"),  # its late layers are large, with few places
        (SigmoidResNet10, True, "plain", "vectorized"),  # batch norm of the batch
    ],
)
def test_the_fastest_path_that_the_victim_allows(model, training, one, many, capture):
    found = found_for(capture((3, 50), size=16, model=model, training=training).observation)
    assert found.choose(1, 1).name == one
    assert found.choose(2, 1).name == many


@pytest.mark.parametrize(("labels", "path"), [((3,), "plain"), ((3, 50), "factored")])
def test_one_batch_is_factored_where_convolutions_take_the_time(labels, path, capture):
    """13 million multiplications an image: of one, the launches of the layers take as long."""
    found = found_for(capture(labels, size=32, model=ConvNet).observation)
    assert found.choose(1, 1).name == path
    assert found.choose(1, compiled.REPAID).name == "factored"


def test_a_victim_for_which_only_plain_autograd_is_right(capture):
    class Moody(nn.Module):
        def __init__(self, *, image_shape, num_classes):
            super().__init__()
            self.linear = nn.Linear(3 * 16 * 16, num_classes)

        def forward(self, x):
            x = self.linear(x.flatten(1))
            return x if x.sum().item() > 0 else 2 * x

    observation = capture(size=16, model=Moody).observation
    with pytest.warns(Notice, match="one instance after another"):
        assert found_for(observation).choose(4, 1).name == "plain"


def test_compiling_wraps_any_path_of_a_stage_that_is_long_enough(capture):
    found = found_for(capture(size=16).observation)
    for n in (1, 2):
        assert found.choose(n, compiled.REPAID - 1).compiler is None
        assert found.choose(n, compiled.REPAID).compiler is found.compiler


def test_torch_func_is_probed_only_where_it_may_be_used(capture, monkeypatch):
    asked = []
    monkeypatch.setattr(probe, "vectorizes", lambda *case: asked.append(case) or True)
    found_for(capture(size=16).observation)
    assert not asked
    found_for(capture(size=16, model=ResNet18, bn="running").observation)  # for the statistics
    assert len(asked) == 1


def test_images_at_once_on_a_cpu(capture):
    observation = capture((3, 50), size=16).observation
    layered = found_for(observation)
    assert layered.at_once(2, 1) == CPU_FACTORED // 2
    assert layered.at_once(2, 50) == CPU_CANDIDATES // 2
    assert layered.at_once(1000, 1) == 1
    assert GradientPaths(observation.victim).at_once(2, 1) == CPU_IMAGES // 2
    on_gpu = GradientPaths(observation.victim)
    object.__setattr__(on_gpu, "victim", type("OnMeta", (), {"mean": torch.zeros(1, device="meta")}))
    assert on_gpu.at_once(2, 1) is None


@pytest.mark.parametrize(("restarts", "path"), [(1, "plain"), (2, "factored")])
def test_the_result_names_the_path(restarts, path, capture):
    assert IG(steps=2, restarts=restarts).run([capture(size=16).observation]).gradient_path == path


def test_the_result_names_every_path_in_order(capture, small_prior):
    """After the latents, one restart of two continues alone."""
    attack = GIAS(steps=4, restarts=2, keep="best", prior=small_prior)
    assert attack.run([capture().observation]).gradient_path == "factored, plain"


def test_the_result_names_compiling_where_it_succeeded(capture, monkeypatch):
    monkeypatch.setattr(Compiler, "__call__", lambda self, function, inputs: lambda *given: function(*given))
    assert IG(steps=2, compile="on").run([capture(size=16).observation]).gradient_path == "factored+compiled"
    monkeypatch.setattr(Compiler, "__call__", lambda self, function, inputs: function)  # as it does after a warning
    assert IG(steps=2, compile="on").run([capture(size=16).observation]).gradient_path == "factored"


def test_statistics_are_the_same_vectorized_or_not(capture):
    observation = capture((3, 50), size=16, model=ResNet18, bn="running", dtype=torch.float64).observation
    images = torch.randn(3, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectorized, plain = (GradientPaths(observation.victim, vectorized=v).statistics(images) for v in (True, False))
    for name, statistics in plain.items():
        torch.testing.assert_close(vectorized[name], statistics)
    assert GI(steps=2, restarts=1).run([observation]).gradient_path == "factored"
