"""Where victims and priors compute."""

import os
from typing import Literal

import torch


def best_device() -> Literal["cuda", "cpu"]:
    """A GPU where PyTorch finds one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    """What rows call it."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def places() -> int:
    """How many processes can work at once: one for each GPU, else one for each core that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return torch.cuda.device_count() or cores
