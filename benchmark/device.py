"""Where victims and priors compute."""

from typing import Literal

import torch


def best_device() -> Literal["cuda", "cpu"]:
    """A GPU where PyTorch finds one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    """What rows call it."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
