"""Compiled graphs, kept in a folder of the user's for every later process and run on the same kind of machine.

A graph that is not there yet is compiled by a process of its own, which takes its memory with it when it ends and can
be ended when it takes too long; meanwhile every process that needs the same graph waits. Then torch loads the graph
from its caches, which takes a second. Every graph has a folder of its own for them, with a list of what is in it: where
something is missing or damaged, the graph is compiled anew.
"""

import json
import logging
import os
import pickle
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch._inductor
from filelock import FileLock, Timeout
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._inductor.cpu_vec_isa import pick_vec_isa
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import ShapeEnv

CACHE = "TORCHINDUCTOR_CACHE_DIR"
COMPILER = "torch._inductor.compile_fx.fx_codegen_and_compile"  # which is called for what is not in the caches


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
    threads = torch.get_num_threads()
    home = folder()
    place = home / sha256(f"{graph.code}{layouts}{threads}".encode()).hexdigest()
    case = pickle.dumps((place, os.getpid(), graph, layouts, threads))
    try:
        with FileLock(place.with_suffix(".lock"), timeout=seconds):
            if not intact(place):
                in_own_process(case, place, until - time.monotonic())
    except (Timeout, subprocess.TimeoutExpired):
        raise TooLateError from None
    torch._logging.set_logs(all=logging.ERROR)  # its warnings are for those who develop it; TORCH_LOGS still counts
    here, loading = patch.dict(os.environ, {CACHE: str(place)}), patch(COMPILER, missed)
    try:
        with here, loading:
            return compiled(*pickle.loads(case)[2:])
    except BaseException:
        contents(place).unlink(missing_ok=True)  # the next run compiles it anew
        raise


def missed(*_: Any, **__: Any) -> Any:
    """In place of torch's compiler, which knows no limit of time."""
    raise RuntimeError("torch does not find in its caches what it has compiled")


def contents(place: Path) -> Path:
    """The list of the files that a compiled graph consists of, with their checksums."""
    return place.with_suffix(".json")


def checksums(place: Path, names: Iterable[str]) -> dict[str, str]:
    return {name: sha256((place / name).read_bytes()).hexdigest() for name in names}


def list_files(place: Path) -> None:
    files = [file for file in place.rglob("*") if file.is_file() and file.suffix != ".lock"]
    contents(place).write_text(json.dumps(checksums(place, [str(file.relative_to(place)) for file in files])))


def intact(place: Path) -> bool:
    """Whether everything is there that was when the graph was compiled: files are removed, and disks run full."""
    try:
        listed = json.loads(contents(place).read_bytes())
        return bool(listed == checksums(place, listed))
    except (OSError, ValueError):
        return False


def folder() -> Path:
    """For this version of torch on this kind of processor, made if it is missing.

    It holds code that is executed, so nobody else may write there.

    Raises:
        OSError: it cannot be made, is a link, or belongs to another user.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    private = caches / "gibench" / "compiled"
    made = private / sha256(f"{torch.__version__} {processor()}".encode()).hexdigest()[:12]
    for path in (private, made):
        path.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.stat().st_uid != os.getuid():
            raise OSError(f"{path} is a link or belongs to another user; remove it")
        path.chmod(0o700)
    return made


def processor() -> str:
    """What code that is compiled for this machine may use: folders are often shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def in_own_process(case: bytes, place: Path, seconds: float) -> None:
    """Compile a pickled case into its folder. The temporary files of all graphs, and compiled headers, share one.

    Raises:
        TimeoutExpired: it took longer; nothing of it goes on.
        RuntimeError: of what the compiler said last.
    """
    temporary = place.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    places = {"PYTHONPATH": os.pathsep.join(sys.path), CACHE: str(place), "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", f"from {__name__} import fill; fill()"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=os.environ | places, start_new_session=True, **pipes) as process:
        try:
            _, said = process.communicate(case, timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # with its C++ compilers
            raise
    if process.returncode:
        shutil.rmtree(temporary, ignore_errors=True)  # a header in it may be what is wrong
        raise RuntimeError((said.decode(errors="replace").split("\n\n")[0].strip().splitlines() or ["killed"])[-1])


def fill() -> None:
    """Compile the case in the standard input, so that torch's caches have it."""
    from torch._dynamo.utils import counters

    import attacks.engine.packed  # noqa: F401 -- whose operations graphs call

    place, parent, graph, layouts, threads = pickle.load(sys.stdin.buffer)
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(threads)
    with FileLock(place.with_suffix(".compiling")):  # of its own: the parent's is free when the parent is killed
        contents(place).unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(instructions(place.with_name("instructions")), place)
        compiled(graph, layouts, threads)
        if counters["inductor"]["fxgraph_cache_bypass"]:
            raise SystemExit("torch cannot keep the compiled graph")
        list_files(place)


def instructions(place: Path) -> Path:
    """What torch compiles to find out which vector instructions work here, which takes seconds; once for all graphs."""
    with FileLock(place.with_suffix(".lock")), patch.dict(os.environ, {CACHE: str(place)}):
        if not intact(place):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(exist_ok=True)
            pick_vec_isa()
            list_files(place)
    return place


def end_with(parent: int) -> None:
    """End this process and its C++ compilers when the one that started it has ended."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)


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
