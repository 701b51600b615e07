"""Processes that share the tasks of a run and nothing else: who starts them, and whether they are still alive."""

import contextlib
import os
import subprocess
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

from benchmark.launch.stop import end_with_parent
from victims.data.base import some
from victims.errors import InputError, Unfinished
from victims.ranges import at_least

STARTER = "GIBENCH_STARTER"  # process id, in the environment of the processes that it starts
LAUNCHER_WRITES = (STARTER, "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


def is_first() -> bool:
    """Whether this process is the one that merges the rows of all processes; known before there is a Trainer."""
    environment = os.environ
    if TorchElasticEnvironment.detect():
        return environment["RANK"] == "0"
    if started_by_srun():
        return environment["SLURM_PROCID"] == "0"
    return {environment.get("NODE_RANK") or "0", environment.get("LOCAL_RANK", "0")} == {"0"}


def started_by_srun() -> bool:
    """Whether this is one of several tasks of a job step; in a job with one task Lightning starts the processes."""
    return int(os.environ.get("SLURM_NTASKS", "1")) > 1 and SLURMEnvironment.detect()


def processes(devices: int | None, nodes: int, *, most: int, groups: int) -> tuple[ClusterEnvironment, int, int]:
    """Who starts the processes (torchrun, srun, or else Lightning), how many on this machine, and on how many machines.

    Args:
        devices: processes on this machine, as the user asks for.
        nodes: machines, as the user asks for.
        most: what Lightning starts on this machine if `devices` is None.
        groups: the number of groups of tasks; Lightning starts no more processes than that.

    Raises:
        InputError: such processes cannot be started, or others were started.
    """
    at_least(1, devices=devices, nodes=nodes)
    if not os.environ.get("NODE_RANK", "0"):
        del os.environ["NODE_RANK"]  # empty, for which Lightning has no number
    if TorchElasticEnvironment.detect():
        here, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        return TorchElasticEnvironment(), *as_started("torchrun", here, world, devices, nodes)
    if started_by_srun():
        if "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise InputError("srun was not told how many processes go on a machine; add --ntasks-per-node.")
        here, world = int(os.environ["SLURM_NTASKS_PER_NODE"]), int(os.environ["SLURM_NTASKS"])
        # Lightning would continue a requeued job from a checkpoint; a run here continues from its rows.
        return SLURMEnvironment(auto_requeue=False), *as_started("srun", here, world, devices, nodes)
    if nodes > 1:
        if devices is None:
            raise InputError("with --nodes every machine starts the same number of processes; give --devices.")
        rank = os.environ.get("NODE_RANK", "")
        if not (rank.isdecimal() and int(rank) < nodes):
            raise InputError(f"start the command on every machine, with NODE_RANK=0 to {nodes - 1} in front of it.")
        return LightningEnvironment(), devices, nodes
    if STARTER not in os.environ and (rank := os.environ.get("NODE_RANK", "0")) not in ("", "0"):
        # This process would wait for a first one.
        raise InputError(
            f"NODE_RANK is {rank} in the environment, where one machine computes; unset it, or give --nodes."
        )
    return LightningEnvironment(), min(devices or most, groups), 1


def as_started(starter: str, here: int, world: int, devices: int | None, nodes: int) -> tuple[int, int]:
    """(processes on this machine, machines), where torchrun or srun has started the processes."""
    if world % here:
        raise InputError(f"{starter} started {world} processes, {here} of them here; start as many on every machine.")
    if devices not in (None, here) or nodes not in (1, world // here):
        raise InputError(
            f"{starter} started {here} processes on each of {world // here} machines; leave --devices and --nodes out."
        )
    return here, world // here


class Launcher(_SubprocessScriptLauncher):
    """Lightning's own launcher, but if one of its processes dies the others continue with their tasks."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            os.environ[STARTER] = str(os.getpid())
            self._call_children_scripts()
        return function(*args, **kwargs)


class ShareTasks(DDPStrategy):
    """Lightning's launching and ranks, without a process group.

    Every rank attacks different tasks, so there is nothing to reduce: averaging gradients over ranks would be
    silently wrong, and a barrier would hang because ranks take different numbers of tasks. DDPStrategy's
    collectives do nothing without a process group.
    """

    def _configure_launcher(self) -> None:
        self.before = {name: os.environ.get(name) for name in LAUNCHER_WRITES}
        assert self.cluster_environment is not None
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup_distributed(self) -> None:
        self.set_world_ranks()
        if self.local_rank > 0 or TorchElasticEnvironment.detect():
            # Lightning's parent is read from the environment: if it has ended already, getppid names another process.
            parent = int(os.environ.get(STARTER, os.getppid()))
            threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()

    def configure_ddp(self) -> None:
        pass

    def reduce(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        return tensor

    def teardown(self) -> None:
        """Restore the environment that the launcher changed: the next run in this process is not a rank of this one."""
        super().teardown()
        for name, value in self.before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

    def wait_for_launched(self, meanwhile: Callable[[], None]) -> list[int]:
        """Wait until the processes that this one launched have ended; returns their ranks.

        Args:
            meanwhile: is called every second.
        """
        assert isinstance(self.launcher, Launcher)
        for process in self.launcher.procs:
            while True:
                try:
                    process.wait(timeout=1)
                    break
                except subprocess.TimeoutExpired:
                    meanwhile()
        return [self.global_rank + 1 + place for place in range(len(self.launcher.procs))]


def wait_for_first(folder: Path, missing: Callable[[], Sequence[str]]) -> None:
    """Wait, in another process than the first, until all tasks have rows or the first one works no longer.

    So the processes of torchrun or srun come to the next cell of a matrix together.

    Args:
        folder: of the heartbeats. This process has none any more, for it does no task.
        missing: returns the tasks without rows.
    """
    file, seen, changed = folder / "0", "", time.monotonic()
    while missing() and time.monotonic() - changed < Heartbeat.quiet and (file.exists() or not seen):
        with contextlib.suppress(OSError):
            if (text := file.read_text()) and text != seen:
                seen, changed = text, time.monotonic()
        time.sleep(Heartbeat.every / 2)


class Heartbeat:
    """A context in which this process keeps changing its own file, and the first process reads those of the others.

    Processes on different machines share only the folder of the run. Whether a file still changes can be seen without
    comparing clocks, and a file that an earlier run left behind does not change.

    Args:
        folder: of the files, one for each process.
        rank: of this process.
        world_size: the number of processes.

    Attributes:
        steps: that this process has done, as it says of itself; the run sets it.
        steps_of_others: the same of the other processes, by rank, as they said last.

    Class attributes, in seconds:
        every: time between two changes of a file, and between two reads.
        quiet: a process whose file has not changed for this long counts as dead.
        start: a process that has shown nothing for this long after this one started counts as dead.
    """

    every, quiet, start = 2.0, 60.0, 600.0

    def __init__(self, folder: Path, rank: int, world_size: int) -> None:
        self.folder, self.rank = folder, rank
        self.others = range(1, world_size) if rank == 0 else range(0)
        self.steps = 0
        self.steps_of_others: dict[int, int] = {}
        self.seen: dict[int, str] = {}
        self.changed: dict[int, float] = {}
        self.ended: set[int] = set()

    def __enter__(self) -> "Heartbeat":
        self.started = time.monotonic()
        self.seen = {rank: self.read(rank) for rank in self.others}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.beat, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.over.set()
        self.thread.join()
        for rank in {self.rank, *self.others} - set(self.alive()):
            self.file(rank).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # files of other processes are still in it
            self.folder.rmdir()

    def file(self, rank: int) -> Path:
        return self.folder / str(rank)

    def read(self, rank: int) -> str:
        """What a process wrote last; empty if it has no file."""
        try:
            return self.file(rank).read_text()
        except OSError:
            return ""

    def beat(self) -> None:
        """The thread: write and read until the context ends."""
        while True:
            with contextlib.suppress(OSError):  # a full disk ends the run when its rows cannot be written
                self.folder.mkdir(parents=True, exist_ok=True)
                self.file(self.rank).write_text(f"{time.time_ns()} {self.steps}")
            for rank in self.others:
                text = self.read(rank)
                if text != self.seen[rank]:
                    self.seen[rank] = text
                    if text or not self.file(rank).exists():  # otherwise it is just being written
                        self.changed[rank] = time.monotonic()
                        if text:
                            self.ended.discard(rank)
                        else:
                            self.ended.add(rank)
                    if said := text.split()[1:]:
                        self.steps_of_others[rank] = int(said[0])
            if self.over.wait(self.every):
                return

    def alive(self) -> list[int]:
        """The other processes that may still be alive."""
        now = time.monotonic()
        return [
            rank
            for rank in self.others
            if rank not in self.ended
            and (now - self.changed[rank] < self.quiet if rank in self.changed else now - self.started < self.start)
        ]

    def wait_for(
        self,
        missing: Callable[[], Sequence[str]],
        ended: Sequence[int] = (),
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Wait until the other processes have done their tasks.

        Args:
            missing: returns the tasks without rows.
            ended: processes that are known to have ended.
            meanwhile: is called again and again.

        Raises:
            Unfinished: tasks have no rows, and no process is left that could work on them.
        """
        self.ended.update(ended)
        while True:
            alive = self.alive()  # read first: a process that ends after this has written its rows before
            tasks = missing()
            if not tasks:
                return
            if not alive:
                raise Unfinished(self.explain(tasks))
            meanwhile()
            time.sleep(self.every / 2)

    def explain(self, tasks: Sequence[str]) -> str:
        """One line: what is missing, why, and what to do."""
        unseen = [str(rank) for rank in self.others if rank not in self.changed and rank not in self.ended]
        why = f"process {some(unseen)} never started" if unseen else "a process ended before its work did"
        return f"tasks without rows: {len(tasks)} ({some(tasks)}); {why}; the same command completes them."
