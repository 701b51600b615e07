"""What all tests share: no network, one thread, small tasks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import Client, Task, capture_task
from defenses.sparsification import Sparsification
from priors.dcgan import DCGAN
from priors.ffdnet import FFDNet
from victims.choices import Level
from victims.data.photos import Photos
from victims.models.lenet import LeNet
from victims.victim import Victim, build

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIBENCH_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")
    torch.set_num_threads(1)


@pytest.fixture
def small_prior() -> DCGAN:
    """Random weights; small enough for hundreds of steps in a test."""
    torch.manual_seed(0)
    return DCGAN(nz=8, ngf=4).eval().requires_grad_(False)


@pytest.fixture
def small_denoiser() -> FFDNet:
    """Random weights."""
    return build(FFDNet, seed=0, depth=3, width=4).eval().requires_grad_(False)


@pytest.fixture
def capture() -> Callable[..., Task]:
    """Captures a task of photos on a LeNet; the same arguments give the same task."""

    def make(
        indices: tuple[int, ...] = (3, 50, 90),
        *,
        task: str = "t",
        size: int = 32,
        rate: float | None = 0.5,
        dtype: torch.dtype = torch.float32,
        give_labels: bool = True,
        victim: Victim | None = None,
        model: type[nn.Module] = LeNet,
        training: bool = False,
        bn: Level = "none",
    ) -> Task:
        data = Photos(split="tune", size=size)
        if victim is None:
            net = build(model, image_shape=(3, size, size), num_classes=10, seed=0).to(dtype)
            victim = Victim(net, mean=data.mean, std=data.std, training=training)
        defense = None if rate is None else Sparsification(rate)
        client = Client(defense=defense, give_labels=give_labels, bn=bn)
        return capture_task(victim, data, Batch(task, indices), client)

    return make
