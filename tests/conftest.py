"""What all tests share: no network, one thread, small tasks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmark.check.small import small_task
from benchmark.tasks.capture import Task
from priors.dcgan import DCGAN
from priors.ffdnet import FFDNet
from victims.modules import build

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

    return small_task
