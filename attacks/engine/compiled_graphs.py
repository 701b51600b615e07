"""Compiled graphs, kept in a folder of the user's for every later process and run on the same kind of machine.

A graph that is not there yet is compiled by a process of its own, which takes its memory with it when it ends and can
be ended when it takes too long; meanwhile every process that needs the same graph waits. Then torch loads the graph
from its caches in this folder, which takes a second.
"""

import os
import pickle
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch._inductor
from filelock import FileLock, Timeout
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import ShapeEnv

CACHE = "TORCHINDUCTOR_CACHE_DIR"


class Layout(NamedTuple):
    """What a graph is compiled for, of each of its inputs."""

    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> "Layout":
        return cls(tensor.size(), tensor.stride(), tensor.dtype, tensor.device)


class TooLateError(Exception):
    """A graph was not compiled in the time that was given."""


def load(graph: GraphModule, layouts: Sequence[Layout], seconds: float) -> Callable[..., Sequence[Tensor]]:
    """The compiled graph, for inputs of these layouts; all tensors that it reads are inputs.

    Args:
        seconds: how long it may be compiled, or waited for.

    Raises:
        TooLateError: it took longer.
        Exception: of compiler, file system or torch: the graph cannot be compiled, or not be kept.
    """
    until = time.monotonic() + seconds
    case = pickle.dumps((graph, layouts, torch.get_num_threads()))
    home = folder()
    done = home / "done" / sha256(f"{graph.code}{layouts}{torch.get_num_threads()}".encode()).hexdigest()
    done.parent.mkdir(exist_ok=True)
    try:
        with FileLock(done.with_suffix(".lock"), timeout=seconds):
            if not done.exists():
                in_own_process(case, home, until - time.monotonic())
                done.touch()
    except (Timeout, subprocess.TimeoutExpired):
        raise TooLateError from None
    with patch.dict(os.environ, {CACHE: str(home)}):
        return compiled(*pickle.loads(case))


def folder() -> Path:
    """For this version of torch on this kind of processor, made if it is missing.

    It holds code that is executed, so nobody else may write there.

    Raises:
        OSError: it cannot be made, or belongs to another user.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    private = caches / "gibench" / "compiled"
    private.mkdir(parents=True, exist_ok=True)
    private.chmod(0o700)
    made = private / sha256(f"{torch.__version__} {processor()}".encode()).hexdigest()[:12]
    made.mkdir(exist_ok=True)
    return made


def processor() -> str:
    """What code that is compiled for this machine may use: folders are often shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def in_own_process(case: bytes, home: Path, seconds: float) -> None:
    """Compile a pickled case there, with its temporary files in the same folder.

    Raises:
        TimeoutExpired: it took longer; nothing of it goes on.
        RuntimeError: of what the compiler said last.
    """
    temporary = home / "tmp"
    temporary.mkdir(exist_ok=True)
    places = {"PYTHONPATH": os.pathsep.join(sys.path), CACHE: str(home), "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", f"from {__name__} import fill; fill()"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=os.environ | places, start_new_session=True, **pipes) as process:
        try:
            _, said = process.communicate(case, timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # with its C++ compilers
            raise
    if process.returncode:
        raise RuntimeError((said.decode(errors="replace").split("\n\n")[0].strip().splitlines() or ["killed"])[-1])


def fill() -> None:
    """Compile the case in the standard input, so that torch's caches have it."""
    from torch._dynamo.utils import counters

    import attacks.engine.packed  # noqa: F401 -- whose operations graphs call

    case = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(case[2])
    compiled(*case)
    if counters["inductor"]["fxgraph_cache_bypass"]:
        raise SystemExit("torch cannot keep the compiled graph")


def compiled(graph: GraphModule, layouts: Sequence[Layout], threads: int) -> Callable[..., Sequence[Tensor]]:
    """By inductor, which looks into its caches first."""
    mode = FakeTensorMode(shape_env=ShapeEnv())  # without one for shapes, torch uses no cache
    with mode:
        inputs: list[Any] = [
            torch.empty_strided(at.size, at.stride, dtype=at.dtype, device=at.device) for at in layouts
        ]
    settings = {"cpp.threads": threads, "triton.cudagraphs": any(layout.device.type == "cuda" for layout in layouts)}
    with torch.no_grad(), tracing(TracingContext(mode)), torch._inductor.config.patch(settings):
        return torch._inductor.compile(graph, inputs)
