"""The judge: scores what an attack returned against the private batch, and keeps rows, pictures and curves."""

import math
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any, Literal

import torch
from pytorch_lightning.callbacks import LambdaCallback
from torch import Tensor

from attacks.engine.stage import Reconstruction
from benchmark.scoring.gallery import Split
from benchmark.scoring.label_accuracy import label_accuracies
from benchmark.scoring.layers import Errors, layer_errors, write_layers
from benchmark.scoring.metrics import METRICS, Gallery
from benchmark.scoring.networks import Networks
from benchmark.scoring.picture import png
from benchmark.scoring.score import assign, degenerate, readable, score
from benchmark.tasks.capture import Task
from leaderboard.rows import Row
from leaderboard.run_folder import RunFolder
from victims.data.base import image_digest

RowMaker = Callable[..., Row]
"""Row with everything filled in that is the same for the whole run."""


class Judge:
    """Scores a group of tasks and writes it down while the attack works on the next group.

    One executor thread does it, task by task. A task's rows are written last, so a task with rows has its pictures and
    its curve.

    Attributes:
        tasks: the group that is attacked now.
    """

    tasks: Sequence[Task] = ()

    def __init__(self, folder: RunFolder, make_row: RowMaker, given: Networks, read_split: Callable[[], Split]) -> None:
        """
        Args:
            given: what metrics need beside the gallery; see `score`.
            read_split: the attacked split; called once, when the first task is scored.
        """
        self.folder, self.make_row, self.given, self.read_split = folder, make_row, given, read_split
        self.pending: list[Future[None]] = []

    @cached_property
    def executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1)

    @cached_property
    def split(self) -> Split:
        return self.read_split()

    def start(self, device: torch.device) -> None:
        """The attack begins with the group."""
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.started = time.perf_counter()

    @torch.no_grad()
    def submit(self, result: Reconstruction) -> None:
        """What the attack returned for the group. What needs a victim happens here: the next client will use it."""
        seconds = (time.perf_counter() - self.started) / len(self.tasks)
        memory = peak_memory(self.tasks[0].victim.mean.device)
        before, self.pending = self.pending, []
        for index, task in enumerate(self.tasks):
            pixels = result.pixels[index].cpu()
            errors = layer_errors(task.victim, task.images[0], result.layers[index]) if result.layers else None
            measured = {
                "cost": float(result.cost[index]),
                "gradient_evaluations": result.gradient_evaluations,
                "gradient_path": result.gradient_path,
                "seconds": round(seconds, 3),
                "memory": memory,
                **label_scores(task, result.labels[index]),
            }
            self.pending.append(self.executor.submit(self.record, task, result, index, errors, pixels, measured))
        wait(before)  # they had the time of an attack; this bounds how many results are held in memory

    def finish(self) -> None:
        """Everything that was submitted is written down when this returns."""
        wait(self.pending)

    def stop(self) -> None:
        """The run fails. What was submitted is written down first."""
        self.executor.shutdown()

    def record(
        self,
        task: Task,
        result: Reconstruction,
        index: int,
        errors: Errors | None,
        pixels: Tensor,
        measured: Mapping[str, Any],
    ) -> None:
        """Everything about one task, which is `index` among those of the result."""
        name = task.observation.task
        costs = torch.stack([cost for _, cost in result.curve])[:, index].tolist()
        self.folder.write_curve(name, [stage for stage, _ in result.curve], costs)
        if errors is not None:
            write_layers(self.folder, name, result.layers[index], errors)
        self.write(task, pixels, measured, certificates(result, index, task.images))

    @torch.no_grad()
    def write(
        self, task: Task, pixels: Tensor, measured: Mapping[str, Any], certified: Sequence[bool | None] | None = None
    ) -> None:
        """Score images (B, C, H, W) of one task; write its pictures, and rows that hold what else was measured.

        Args:
            certified: see `certificates`.
        """
        name = task.observation.task
        gallery = Gallery(self.split.images, self.split.places(task.sample_ids, task.images))
        finite = math.isfinite(measured["cost"])
        aligned, scores = score(pixels, task.images, failed=not finite, **self.given, gallery=gallery)
        for sample_id, image in zip(task.sample_ids, aligned, strict=True):
            self.folder.write_reconstruction(name, sample_id, png(image))
        shared, total = task.observation.victim.parameter_counts()
        rows = [
            self.make_row(
                task=name,
                image=sample_id,
                label=int(label),
                image_digest=image_digest(truth, int(label)),
                status=status(finite),
                degenerate=flat,
                certified=certified[k] if certified else None,
                **{**measured, "cost": measured["cost"] if finite else None},
                shared_parameters=shared,
                total_parameters=total,
                scores={metric: values[k] for metric, values in scores.items()},
                higher_is_better={metric: METRICS[metric].higher_is_better for metric in scores},
                ranges={metric: ends(METRICS[metric].range) for metric in scores},
            )
            for k, (sample_id, truth, label, flat) in enumerate(
                zip(task.sample_ids, task.images, task.labels, degenerate(task.images).tolist(), strict=True)
            )
        ]
        self.folder.add_rows(name, rows)


def reports(judge: Judge) -> LambdaCallback:
    """A callback that tells the judge what happens; no attribute of it leads to the judge, who knows the truth."""
    return LambdaCallback(
        on_train_epoch_start=lambda trainer, attack: judge.start(attack.device),
        on_train_epoch_end=lambda trainer, attack: judge.submit(attack.result()),
        on_train_end=lambda trainer, attack: judge.finish(),
        on_exception=lambda trainer, attack, exception: judge.stop(),
    )


def ends(bounds: tuple[float, float]) -> list[float | None]:
    """A range as a row has it: JSON holds no infinite number."""
    return [end if math.isfinite(end) else None for end in bounds]


def wait(pending: Sequence[Future[None]]) -> None:
    """Wait for submitted work; an error that it met is raised here."""
    for future in pending:
        future.result()


def status(finite: bool) -> Literal["ok", "diverged"]:
    """What a row says of an attack, by whether its cost is finite."""
    return "ok" if finite else "diverged"


def certificates(result: Reconstruction, index: int, images: Tensor) -> list[bool | None]:
    """Whether the attacker knows the reconstruction of each private image to be right; None without such a check.

    Args:
        index: of the task among those of the result.
        images: the private ones, (B, C, H, W).
    """
    if result.certified is None:
        return [None] * len(images)
    order = assign(readable(result.pixels[index]), images.cpu())
    return result.certified[index].cpu()[order].tolist()


def label_scores(task: Task, labels: Tensor) -> dict[str, float]:
    """Scores of the labels that an attack used, by their names in a row."""
    victim = task.victim
    one_logit = victim.logits(victim.parameters, task.images.to(victim.mean)).shape[-1] == 1
    accuracies = label_accuracies(labels, task.labels, parity=one_logit)
    return {f"label_{name}": value for name, value in accuracies.items()}


def peak_memory(device: torch.device) -> int:
    """MiB: the most that tensors took on a GPU since the last reset, or that this process took on a CPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes that the system counts in
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)
