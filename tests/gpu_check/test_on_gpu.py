"""On a GPU every attack finds what it finds on the CPU, twice the same, in several processes, and in little memory.

With GPU_CHECK_DEVICE=cpu the tests compare the CPU with itself: that tries the tests.
"""

import hashlib
import inspect
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from attacks.base import Attack
from attacks.engine.stage import Reconstruction
from attacks.ig import IG
from benchmark.check.small import any_update
from benchmark.device import reproducible
from benchmark.registry import find, registered
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import Client, capture_task
from priors.base import Denoiser, Generator
from priors.biggan import BigGAN
from priors.dcgan import DCGAN
from priors.ffdnet import FFDNet
from priors.stylegan2 import StyleGAN2
from tests.gpu_check.missing import stand_in
from victims.data.photos import Photos
from victims.errors import Notice
from victims.models.lenet import LeNet
from victims.models.resnet20 import ResNet20
from victims.modules import build
from victims.observation import Observation
from victims.victim import Victim

DEVICE = torch.device(os.environ.get("GPU_CHECK_DEVICE", "cuda"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
]

STEPS = 5
# In float64 the algorithms of cuDNN and of the CPU differ in the 15th digit, and five steps do not raise that to the
# 6th: L-BFGS, the most sensitive, raises it a hundredfold a step. In float32 a sign near zero may turn, so a curve is
# compared up to 1e-3 there; after many steps the curves of two devices are as far apart as those of two starts.
DOUBLE, SINGLE = 1e-6, 1e-3


class Values(nn.Module):
    """Looks at values, which `torch.func` cannot do: its gradients are plain autograd, one batch after another."""

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.conv, self.classifier = nn.Conv2d(image_shape[0], 16, 3, stride=4), nn.Linear(16 * 8 * 8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x).sigmoid().flatten(1)
        return self.classifier(h if float(h.detach().sum()) > 0 else -h)


VICTIMS = {"factored": (LeNet, False), "vectorized": (ResNet20, True), "plain": (Values, False)}
PRIORS = {
    "dcgan": lambda: build(DCGAN, size=32, ngf=4, nz=8, seed=0),
    "stylegan2": lambda: build(StyleGAN2, size=32, width=4, style_dim=8, layers_mapping=2, seed=0),
    "biggan": lambda: build(BigGAN, size=128, channels=4, classes=10, seed=0),
}
ATTACKS = registered("attack")
CASES = [
    *(
        (name, victim, "dcgan")
        for name, attack in ATTACKS.items()
        for victim in VICTIMS
        if not attack.made_for or victim == "factored"
    ),
    *(
        (name, "factored", prior)
        for name, attack in ATTACKS.items()
        for prior in ("stylegan2", "biggan")
        if "prior" in attack.needs and attack.takes is Generator and not attack.made_for
    ),
]
OWN = {"gi": {"noise": 0.0}, "pnp_gi": {"noise": 0.0}}  # drawn in every step, by the device's own generator


@pytest.fixture(autouse=True)
def _as_in_a_run() -> None:
    reproducible()


def observation(method: type[Attack], victim: str, dtype: torch.dtype, device: torch.device) -> Observation:
    """Of two photographs, or of one, on the victim that the method is made for, or on one of `VICTIMS`."""
    model, training = VICTIMS[victim]
    if "victim" in method.made_for:
        model = find("victim", method.made_for["victim"])
    data = Photos(split="tune", size=32)
    net = build(model, image_shape=(3, 32, 32), num_classes=10, seed=0).to(dtype)
    on_device = Victim(net, mean=data.mean, std=data.std, training=training).to(device)
    return capture_task(on_device, data, Batch("t", (3, 90)[: method.made_for.get("batch")]), Client()).observation


def attack(method: type[Attack], prior: str, dtype: torch.dtype, device: torch.device, **options: object) -> Attack:
    if "prior" in method.needs:
        own = {Generator: PRIORS[prior], Denoiser: lambda: build(FFDNet, seed=0, depth=3, width=4)}
        network = own[method.takes]() if method.takes in own else any_update(method.takes)
        options["prior"] = network.to(dtype).eval().requires_grad_(False)
    if not method.analytic:
        options = {"steps": STEPS, **options}
    if method.name == "gifd":
        options["layers"] = STEPS - 1  # a step for each stage
    if "population" in inspect.signature(method.__init__).parameters:
        options["population"] = 4
    return method(**{"restarts": 2, "compile": "off", **options}).to(device)


def result(
    name: str, victim: str, prior: str, dtype: torch.dtype, device: torch.device, **options: object
) -> Reconstruction:
    method = ATTACKS[name]
    return attack(method, prior, dtype, device, **options).run([observation(method, victim, dtype, device)])


def curve(found: Reconstruction) -> Tensor:
    return torch.stack([cost for _, cost in found.curve]).cpu()


@pytest.mark.filterwarnings("ignore::victims.errors.Notice")
@pytest.mark.parametrize(("name", "victim", "prior"), CASES, ids=map("-".join, CASES))
def test_every_attack_finds_what_it_finds_on_the_cpu(name, victim, prior):
    there, here = (
        result(name, victim, prior, torch.float64, d, **OWN.get(name, {})) for d in (DEVICE, torch.device("cpu"))
    )
    torch.testing.assert_close(curve(there), curve(here), rtol=DOUBLE, atol=1e-9)
    assert there.images.device.type == DEVICE.type


@pytest.mark.filterwarnings("ignore::victims.errors.Notice")
@pytest.mark.parametrize("name", ["ig", "gias", "gifd"])
def test_single_precision_is_that_of_the_cpu(name):
    there, here = (result(name, "factored", "dcgan", torch.float32, d) for d in (DEVICE, torch.device("cpu")))
    torch.testing.assert_close(curve(there), curve(here), rtol=SINGLE, atol=1e-5)


@pytest.mark.filterwarnings("ignore::victims.errors.Notice")
@pytest.mark.parametrize("name", ATTACKS)
def test_two_runs_are_equal_bit_by_bit(name):
    one, other = (result(name, "factored", "dcgan", torch.float32, DEVICE) for _ in range(2))
    assert torch.equal(one.images, other.images)
    assert torch.equal(curve(one), curve(other))


def digest(_: int) -> str:
    reproducible()
    found = result("ig", "vectorized", "dcgan", torch.float32, DEVICE)
    return hashlib.sha256(found.images.cpu().numpy().tobytes()).hexdigest()


def test_several_processes_on_one_device_find_the_same():
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), stand_in) as processes:
        found = list(processes.map(digest, range(2)))
    assert set(found) == {digest(0)}


@pytest.mark.skipif(DEVICE.type != "cuda", reason="the limit is one of CUDA")
def test_chunks_are_halved_where_the_memory_of_the_gpu_runs_out():
    seen = observation(IG, "factored", torch.float32, DEVICE)
    start, restarts = torch.cuda.memory_allocated(), 512

    def search() -> Reconstruction:
        return IG(steps=2, restarts=restarts, compile="off").to(DEVICE).run([seen])

    torch.cuda.reset_peak_memory_stats()
    whole = search()
    needed = torch.cuda.max_memory_allocated() - start
    torch.cuda.empty_cache()
    share = (torch.cuda.memory_reserved() + needed / 2) / torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        with pytest.warns(Notice, match="memory ran out; continuing with chunks of"):
            halved = search()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    torch.testing.assert_close(halved.cost, whole.cost, rtol=SINGLE, atol=1e-5)
