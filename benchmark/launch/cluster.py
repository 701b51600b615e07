"""The options of `python -m benchmark submit` itself. Nothing here imports torch: help is answered at once."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import submitit

from victims.errors import InputError
from victims.ranges import at_least


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where jobs run, and with what.

    Args:
        cluster: `slurm`: one job array, and the command returns at once; `local`: processes on this machine; `debug`:
            one job after another in this process, with all that they print, on all GPUs.
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
            InputError: a count is impossible, a partition is given where there is none, jobs would share a GPU, or
                there is no SLURM here.
        """
        at_least(1, cpus=self.cpus, minutes=self.minutes, at_once=self.at_once)
        at_least(0, gpus=self.gpus)
        if self.partition and self.cluster != "slurm":
            raise InputError(f"{self.cluster} has no partitions; leave --partition out, or choose --cluster slurm.")
        if self.cluster == "local" and self.gpus and (self.at_once or 1) > 1:
            raise InputError("jobs on one machine would all compute on its first GPUs; leave --at-once or --gpus out.")
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
