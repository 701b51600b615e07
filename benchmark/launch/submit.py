"""`python -m benchmark submit`: every cell of a matrix as a job of its own, on a cluster or on this machine."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import submitit

from benchmark.launch.matrix import Cell, distinct, report
from victims.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where jobs run, and with what.

    Args:
        cluster: `slurm`: as one array, nobody waits for it here; `local`: processes on this machine; `debug`: one
            after the other in this process, with all they print.
        partition: of SLURM.
        gpus: of every job.
        cpus: cores of every job; a job without a GPU starts one process for each.
        minutes: after which a job is stopped; SLURM starts it again, up to three times, and it goes on where it was.
        at_once: jobs that run at the same time, by default one on this machine and all on a cluster.
    """

    cluster: Literal["slurm", "local", "debug"] = "slurm"
    partition: str | None = None
    gpus: int = 0
    cpus: int = 1
    minutes: int = 24 * 60
    at_once: int | None = None

    def executor(self, folder: Path) -> submitit.AutoExecutor:
        """What takes jobs; their logs go into `folder`.

        Raises:
            InputError: a count is impossible, a partition is given where there is none, or there is no SLURM here.
        """
        lowest = {"gpus": 0, "cpus": 1, "minutes": 1, "at_once": 1}
        for name, least in lowest.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise InputError(f"{name} is {value}; give {least} or more.")
        if self.partition and self.cluster != "slurm":
            raise InputError(f"{self.cluster} has no partitions; leave --partition out, or choose --cluster slurm.")
        try:
            executor = submitit.AutoExecutor(folder, cluster=self.cluster)
        except RuntimeError:
            raise InputError("there is no srun on this machine; submit from a SLURM one, or --cluster local.") from None
        executor.update_parameters(
            name="gibench",
            timeout_min=self.minutes,
            gpus_per_node=self.gpus,
            cpus_per_task=self.cpus,
            slurm_partition=self.partition,
            slurm_array_parallelism=self.at_once,
        )
        return executor


class Job(submitit.helpers.Checkpointable):
    """One run; stopped by a time limit it is submitted anew, and its rows are what it goes on from."""

    def __call__(self, arguments: Sequence[str]) -> int:
        """The exit code. A process of its own, for Lightning starts the command line again in all of a run."""
        return subprocess.run([sys.executable, "-m", "benchmark", *arguments], check=False).returncode


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options that say where jobs run, and those of the runs, each as `--option=value`."""
    own = {f"--{field.name}" for field in fields(Cluster)} | {"--help", "-h"}
    mine: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if name in own and name.startswith("--") and not equals and name != "--help":
            argument += f"={next(rest, '')}"
        (mine if name in own else others).append(argument)
    return mine, others


def submit(cells: Sequence[Cell], where: Cluster) -> int:
    """Start a job for every cell; on this machine wait for them and print their board.

    Returns:
        the exit code: 0, or 1 where a job has failed.

    Raises:
        InputError: as `distinct` and `Cluster.executor` do, or a run is spread over machines; nothing has been started
            then.
    """
    cells = distinct(cells)
    if any(config.nodes != 1 for _, config in cells):
        raise InputError("a job is a run on one machine; leave --nodes out.")
    out = cells[0][1].out
    logs = out / "jobs"
    executor = where.executor(logs)
    print(f"jobs     {len(cells)}, logs in {logs}", flush=True)
    if where.cluster == "slurm":
        jobs = executor.map_array(Job(), [arguments for arguments, _ in cells])
        print(f"array    {jobs[0].job_id.split('_')[0]}; when it is done: make leaderboard OUT={out}")
        return 0
    jobs = []
    for arguments, _ in cells:
        while sum(not job.done() for job in jobs) >= (where.at_once or 1):
            time.sleep(0.2)
        jobs.append(executor.submit(Job(), arguments))
    failed = {place: why for place, job in enumerate(jobs) if (why := failure(job))}
    report([config for place, (_, config) in enumerate(cells) if place not in failed])
    for place, why in failed.items():
        print(f"benchmark: no result from {' '.join(cells[place][0])}: {why}.", file=sys.stderr)
    return 1 if failed else 0


def failure(job: submitit.Job) -> str:
    """Why a job has no result, once it has ended; empty where it has one."""
    try:
        code = job.result()
    except (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError):
        return f"stopped or broken, see {job.paths.stderr}"
    return f"exit code {code}, see {job.paths.stderr}" if code else ""
