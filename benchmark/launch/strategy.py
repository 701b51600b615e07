"""Processes that share tasks and nothing else."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from victims.data.base import some
from victims.errors import InputError, Unfinished

STARTER = "GIBENCH_STARTER"  # process id, in the environment of the processes that it starts
LAUNCHER_WRITES = (STARTER, "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


def is_first() -> bool:
    """Whether this process is the one that gathers what all of a run do; known before there is a Trainer."""
    environment = os.environ
    if TorchElasticEnvironment.detect():
        return environment["RANK"] == "0"
    if started_by_srun():
        return environment["SLURM_PROCID"] == "0"
    return {environment.get("NODE_RANK", "0"), environment.get("LOCAL_RANK", "0")} == {"0"}


def started_by_srun() -> bool:
    """As one of several tasks of a step; a job with one task starts its processes by itself."""
    return int(os.environ.get("SLURM_NTASKS", "1")) > 1 and SLURMEnvironment.detect()


def processes(devices: int | None, nodes: int, *, most: int, groups: int) -> tuple[ClusterEnvironment, int, int]:
    """Who starts the processes (torchrun, srun, or else Lightning), how many on this machine, and on how many machines.

    Args:
        devices: on this machine, as asked for.
        nodes: machines, as asked for.
        most: what Lightning starts on this machine where `devices` is None.
        groups: of tasks; Lightning starts no more processes than there are.

    Raises:
        InputError: what was asked for is not what was started, or cannot be.
    """
    for name, count in {"devices": devices, "nodes": nodes}.items():
        if count is not None and count < 1:
            raise InputError(f"{name} is {count}; give 1 or more.")
    if TorchElasticEnvironment.detect():
        here, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        return TorchElasticEnvironment(), *as_started("torchrun", here, world, devices, nodes)
    if started_by_srun():
        if "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise InputError("srun was not told how many processes go on a machine; add --ntasks-per-node.")
        here, world = int(os.environ["SLURM_NTASKS_PER_NODE"]), int(os.environ["SLURM_NTASKS"])
        # Requeued by Lightning it would go on from a checkpoint; here the rows are what a run goes on from.
        return SLURMEnvironment(auto_requeue=False), *as_started("srun", here, world, devices, nodes)
    if nodes > 1:
        if devices is None:
            raise InputError("with --nodes every machine must start as many processes; say how many with --devices.")
        if not 0 <= int(os.environ.get("NODE_RANK", "-1")) < nodes:
            raise InputError(f"start it on every machine, with NODE_RANK=0 to {nodes - 1} in front of the command.")
        return LightningEnvironment(), devices, nodes
    return LightningEnvironment(), min(devices or most, groups), 1


def as_started(starter: str, here: int, world: int, devices: int | None, nodes: int) -> tuple[int, int]:
    """Processes on this machine and machines, where something else has started them."""
    if world % here:
        raise InputError(f"{starter} started {world} processes, {here} of them here; start as many on every machine.")
    if devices not in (None, here) or nodes not in (1, world // here):
        raise InputError(
            f"{starter} started {here} processes on each of {world // here} machines; leave --devices and --nodes out."
        )
    return here, world // here


class Launcher(_SubprocessScriptLauncher):
    """Lightning's own, but when one of its processes dies the others go on with their tasks."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            os.environ[STARTER] = str(os.getpid())
            self._call_children_scripts()
        return function(*args, **kwargs)


class ShareTasks(DDPStrategy):
    """Lightning's launching and ranks, without a process group.

    Every rank attacks other tasks, so there is nothing to reduce: averaging gradients over ranks would be
    silently wrong, and a barrier would hang, for ranks take different numbers of tasks. DDPStrategy's
    collectives do nothing where no process group exists.
    """

    def _configure_launcher(self) -> None:
        self.before = {name: os.environ.get(name) for name in LAUNCHER_WRITES}
        assert self.cluster_environment is not None
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup_distributed(self) -> None:
        self.set_world_ranks()
        if self.local_rank > 0 or TorchElasticEnvironment.detect():
            # Where Lightning started it the system is not asked: a parent that is gone by now would never be missed.
            parent = int(os.environ.get(STARTER, os.getppid()))
            threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()

    def configure_ddp(self) -> None:
        pass

    def reduce(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        return tensor

    def teardown(self) -> None:
        """Take back what the launcher wrote into the environment: the next run here would take itself for a rank."""
        super().teardown()
        for name, value in self.before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

    def wait_for_launched(self) -> list[int]:
        """Until the processes that this one launched have ended; their ranks."""
        assert isinstance(self.launcher, Launcher)
        for process in self.launcher.procs:
            process.wait()
        return [self.global_rank + 1 + place for place in range(len(self.launcher.procs))]


def end_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone: a killed run must not go on in the background."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


class Heartbeat:
    """While it is entered, a file that this process keeps changing; the first process looks at those of the others.

    Processes on different machines share nothing but the run's folder. Whether a file still changes can be seen
    without comparing clocks, and one that an earlier run left behind does not.

    Class attributes, in seconds:
        every: between two changes, and two looks.
        quiet: a process whose file has not changed for so long is gone.
        start: one of which nothing was seen since this process started is not waited for any longer.
    """

    every, quiet, start = 2.0, 60.0, 600.0

    def __init__(self, folder: Path, rank: int, world_size: int) -> None:
        self.folder, self.rank = folder, rank
        self.others = range(1, world_size) if rank == 0 else range(0)
        self.seen: dict[int, str] = {}
        self.changed: dict[int, float] = {}
        self.ended: set[int] = set()

    def __enter__(self) -> "Heartbeat":
        self.started = time.monotonic()
        self.seen = {rank: self.read(rank) for rank in self.others}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.keep, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.over.set()
        self.thread.join()
        for rank in {self.rank, *self.others} - set(self.at_work()):
            self.file(rank).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are still in it
            self.folder.rmdir()

    def file(self, rank: int) -> Path:
        return self.folder / str(rank)

    def read(self, rank: int) -> str:
        """What a process wrote last; empty where it has no file."""
        try:
            return self.file(rank).read_text()
        except OSError:
            return ""

    def keep(self) -> None:
        """The thread: write and look until it is over."""
        while True:
            with contextlib.suppress(OSError):  # a full disk is no reason to end; the rows will say so
                self.folder.mkdir(parents=True, exist_ok=True)
                self.file(self.rank).write_text(str(time.time_ns()))
            for rank in self.others:
                text = self.read(rank)
                if text != self.seen[rank]:
                    self.seen[rank] = text
                    if text or not self.file(rank).exists():  # else it is being written just now
                        self.changed[rank] = time.monotonic()
                        (self.ended.discard if text else self.ended.add)(rank)
            if self.over.wait(self.every):
                return

    def at_work(self) -> list[int]:
        """Other processes that may still be at work."""
        now = time.monotonic()
        return [
            rank
            for rank in self.others
            if rank not in self.ended
            and (now - self.changed[rank] < self.quiet if rank in self.changed else now - self.started < self.start)
        ]

    def wait_for(self, missing: Callable[[], Sequence[str]], gone: Sequence[int] = ()) -> None:
        """Until the others have finished what is missing.

        Args:
            missing: tasks without rows.
            gone: processes that are known to have ended.

        Raises:
            Unfinished: tasks are missing and nobody is left who could be at work on them.
        """
        self.ended.update(gone)
        while True:
            left = self.at_work()  # before what is missing: whoever ended since has written its rows
            tasks = missing()
            if not tasks:
                return
            if not left:
                raise Unfinished(self.explain(tasks))
            time.sleep(self.every / 2)

    def explain(self, tasks: Sequence[str]) -> str:
        """One line on what is missing, why, and what to do."""
        unheard = [str(rank) for rank in self.others if rank not in self.changed and rank not in self.ended]
        why = f"of process {some(unheard)} nothing was ever seen" if unheard else "a process ended before its work did"
        return f"tasks without rows: {len(tasks)} ({some(tasks)}); {why}; the same command completes them."
