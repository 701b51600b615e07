import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from attacks.base import Attack
from attacks.engine import probe
from attacks.engine.gradients import GradientPaths, victim_gradients
from attacks.engine.objective import Objective
from attacks.engine.probe import Probe, try_paths, vectorizes
from attacks.engine.stage import Stage
from attacks.ig import IG
from benchmark.registry import registered
from priors.dcgan import DCGAN
from victims.errors import InputError, Notice
from victims.modules import build
from victims.victim import Victim

R, B = 3, 2
SHAPE = {"image_shape": (3, 16, 16), "num_classes": 10}


def make_victim(model, training=False):
    return Victim(model.double(), mean=(0.5,) * 3, std=(0.2,) * 3, training=training)


def dummy_batches(size=16):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(R, B, 3, size, size, generator=generator, dtype=torch.float64, requires_grad=True)
    return images, torch.randint(10, (R, B), generator=generator)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["convnet", "lenet", "resnet20", "sigmoid_resnet10"])
def test_vectorized_equals_looped_twice_differentiated(name, training):
    victim = make_victim(build(registered("victim")[name], **SHAPE, seed=0), training)
    assert vectorizes(Probe(victim, (3, 16, 16), B))
    images, labels = dummy_batches()
    outcomes = []
    for vectorized in (True, False):
        gradients = victim_gradients(victim, images, labels, vectorized=vectorized)
        (second,) = torch.autograd.grad(sum(g.square().sum() for g in gradients.values()), images)
        outcomes.append((gradients, second))
    for name in outcomes[0][0]:
        torch.testing.assert_close(outcomes[0][0][name], outcomes[1][0][name], rtol=1e-8, atol=1e-12)
    second, plain = outcomes[0][1], outcomes[1][1]
    assert (second - plain).norm() <= 1e-7 * plain.norm()


@pytest.mark.parametrize("vectorized", [True, False])
def test_second_derivative_of_a_net_with_batch_norm_matches_finite_differences(vectorized):
    victim = make_victim(build(registered("victim")["sigmoid_resnet10"], **SHAPE, seed=0), training=True)
    images, labels = dummy_batches()

    def norm2(x):
        return sum(g.square().sum() for g in victim_gradients(victim, x, labels, vectorized=vectorized).values())

    (gradient,) = torch.autograd.grad(norm2(images), images)
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 1e-6 * direction
    difference = (norm2(images.detach() + step) - norm2(images.detach() - step)).item() / 2e-6
    assert (gradient * direction).sum().item() == pytest.approx(difference, rel=1e-5)


def test_each_instance_has_the_gradient_of_plain_autograd():
    model = build(registered("victim")["lenet"], image_shape=(3, 16, 16), num_classes=10, seed=0).double()
    images, labels = dummy_batches()
    gradients = victim_gradients(make_victim(model), images, labels)
    for instance in range(R):
        model.zero_grad()
        nn.functional.cross_entropy(model(images[instance].detach()), labels[instance]).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name][instance], parameter.grad)


class Moody(nn.Module):
    """Branches on a value, which torch.func cannot vectorize."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 10)

    def forward(self, x):
        x = self.linear(x.flatten(1))
        return x if x.sum().item() > 0 else 2 * x


def test_a_victim_that_torch_func_cannot_run_runs_eagerly_with_a_warning(capture):
    torch.manual_seed(0)
    victim = Victim(Moody(), mean=(0.5,) * 3, std=(0.2,) * 3)
    with pytest.warns(Notice, match=r"torch\.func cannot run this victim"):
        assert not vectorizes(Probe(victim, (3, 16, 16), B))
    observation = capture(size=16, victim=victim).observation
    with pytest.warns(Notice):
        result = IG(steps=30).run([observation])
    assert result.cost.item() < result.curve[0][1].item() - 0.05


class Stages(Attack):
    """Yields the given stages, independent of its plan."""

    def __init__(self, plan, names):
        super().__init__(plan)
        self.names = names

    def search(self):
        for name in self.names:
            yield Stage(name=name, variables={"x": self.noise()}, decode=lambda v: v["x"], lr=0.1)


@pytest.mark.parametrize(("plan", "names"), [(["a"], ["b"]), (["a", "b"], ["a"]), (["a"], ["a", "b"])])
def test_a_search_that_differs_from_its_plan_is_a_clear_error(plan, names, capture):
    with pytest.raises(ValueError, match="plan"):
        Stages(dict.fromkeys(plan, 1), names).run([capture(size=16).observation])


OUT_OF_MEMORY = {
    "gpu": torch.OutOfMemoryError(),
    "cpu": RuntimeError("[enforce fail] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
    "cpu's library": RuntimeError("std::bad_alloc"),
    "oneDNN": RuntimeError("could not create a primitive"),
    "python": MemoryError(),
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
@pytest.mark.parametrize("method", ["ig", "ggl"])
def test_chunks_are_halved_when_memory_runs_out(method, error, capture, monkeypatch):
    """Also within a step: the results of its first chunks are discarded."""
    attack = registered("attack")[method]
    options = {"prior": build(DCGAN, size=32, ngf=4, seed=0).eval(), "population": 6} if "prior" in attack.needs else {}
    observation = capture().observation
    whole = attack(steps=2, restarts=3, seed=0, **options).run([observation])
    asked = []
    real = Objective._evaluate

    def evaluate(self, chunk, *given):
        asked.append(chunk.rows.stop - chunk.rows.start)
        if asked[-1] > 1:
            raise error
        return real(self, chunk, *given)

    monkeypatch.setattr(Objective, "_evaluate", evaluate)
    with pytest.warns(Notice, match="memory ran out; continuing with chunks of 1"):
        halved = attack(steps=2, restarts=3, seed=0, chunk=3, **options).run([observation])
    assert asked[:2] == [3, 1]
    assert max(asked[1:]) == 1
    torch.testing.assert_close(halved.cost, whole.cost, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_the_trial_of_a_path_leaves_a_lack_of_memory_to_the_run(error, capture, monkeypatch):
    """A run takes smaller chunks; the model can be attacked."""

    def short(*_):
        raise error

    monkeypatch.setattr(probe, "cost_gradient", short)
    victim = capture().observation.victim
    try_paths(GradientPaths(victim), Probe(victim, (3, 32, 32), 3))


def test_too_little_memory_for_one_batch_is_one_clear_line(capture, monkeypatch):
    def evaluate(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Objective, "_evaluate", evaluate)
    with pytest.warns(Notice), pytest.raises(InputError, match="lower --batch or --size"):
        IG(steps=2, restarts=2, chunk=2).run([capture().observation])


def test_another_error_is_no_lack_of_memory(capture, monkeypatch):
    def evaluate(*_):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Objective, "_evaluate", evaluate)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        IG(steps=2, restarts=2, chunk=2).run([capture().observation])


SHORT_OF_MEMORY = """
import resource, warnings
from pathlib import Path
import torch
from torch import nn
import gibench
from victims.errors import Notice

torch.set_num_threads(1)
wide = [nn.Conv2d(3, 64, 3, padding=1), nn.Tanh(), nn.Conv2d(64, 64, 3, padding=1), nn.Tanh()]
model = nn.Sequential(*wide, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 10))
images, labels = torch.rand(2, 3, 32, 32), torch.tensor([3, 5])
observation = gibench.capture(model, images, labels)
gibench.attack("ig", observation, steps=1, restarts=1)  # what is loaded and allocated once
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 200 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", Notice)
    gibench.attack("ig", observation, steps=1, restarts=64, chunk=64)
print(*(warning.message for warning in caught), sep="\\n")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's limits of memory")
def test_chunks_are_halved_where_a_cpus_memory_runs_out():
    """200 MB are left, and 64 restarts at once need several times as much."""
    done = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "memory ran out; continuing with chunks of 32." in done.stdout
