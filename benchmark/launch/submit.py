"""`python -m benchmark submit`: every cell of a matrix as a job of its own, on a cluster or on this machine."""

import subprocess
import sys
import time
from collections.abc import Sequence

import submitit
import torch

from benchmark.launch.cluster import Cluster
from benchmark.launch.lock import writable
from benchmark.launch.matrix import Cell, distinct, report
from victims.errors import InputError


class Job(submitit.helpers.Checkpointable):
    """One run; stopped by a time limit it is submitted anew, and its rows are what it goes on from."""

    def __call__(self, arguments: Sequence[str]) -> int:
        """The exit code. A process of its own, for Lightning starts the command line again in all of a run."""
        return subprocess.run([sys.executable, "-m", "benchmark", *arguments], check=False).returncode


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
    sees_gpus = where.gpus or (where.cluster == "debug" and torch.cuda.is_available())
    if where.cluster != "slurm" and not sees_gpus:  # on this machine submitit has no limit of cores
        limit = [f"--devices={where.cpus}"]
        cells = [(arguments if config.devices else [*arguments, *limit], config) for arguments, config in cells]
    out = cells[0][1].out
    logs = writable(out / "jobs")
    executor = where.executor(logs)
    print(f"jobs     {len(cells)}, logs in {logs}", flush=True)
    if where.cluster == "slurm":
        try:
            jobs = executor.map_array(Job(), [arguments for arguments, _ in cells])
        except submitit.core.utils.FailedJobError as error:
            raise InputError(f"SLURM takes no such jobs: {str(error).strip().splitlines()[-1]}") from None
        print(f"array    {jobs[0].job_id.split('_')[0]}; when it is done: make leaderboard OUT={out}")
        return 0
    jobs = []
    try:
        for arguments, _ in cells:
            while sum(not job.done() for job in jobs) >= (where.at_once or 1):
                time.sleep(0.2)
            jobs.append(executor.submit(Job(), arguments))
        failed = {place: why for place, job in enumerate(jobs) if (why := failure(job))}
    except BaseException:  # Ctrl-C, or a signal: jobs would outlive this process
        for job in jobs:
            job.cancel()
        raise
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
