"""Where victims and priors compute, and how exactly."""

import logging
import os
from typing import Literal

import torch
from threadpoolctl import threadpool_limits


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


def reproducible() -> None:
    """The same rows whatever the number of processes or cores: one thread each on a CPU, exact fp32 on a GPU."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    threadpool_limits(1, user_api="blas")  # numpy in CMA-ES: its threads mostly wait for each other
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
