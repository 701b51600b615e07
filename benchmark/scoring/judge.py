"""The judge: scores what an attack returned against the private batch, and keeps rows, pictures and curves."""

import csv
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor
from torchvision.utils import save_image

from attacks.base import Attack, Reconstruction
from benchmark.scoring.label_accuracy import label_accuracies
from benchmark.scoring.layers import Errors, layer_errors, write_layers
from benchmark.scoring.lpips import Lpips
from benchmark.scoring.metrics import HIGHER_IS_BETTER, identified, score
from benchmark.tasks.module import GradientDataModule, Task
from leaderboard.rows import Row, RowStore
from victims.data.base import ImageData
from victims.victim import Victim

RowMaker = Callable[..., Row]
"""Row with everything filled in that is the same for the whole run."""


class Judge(Callback):
    """At the end of every group of tasks: score, and write it down, beside the attack on the next.

    One thread does it, task by task. Rows of a task are the last thing written, so a task with rows has its pictures
    and its curve.
    """

    def __init__(self, folder: Path, make_row: RowMaker, lpips: Lpips, data: ImageData) -> None:
        self.folder, self.make_row, self.lpips, self.data = folder, make_row, lpips, data
        self.store = RowStore(folder)
        self.handed: list[Future] = []

    @cached_property
    def executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1)

    @cached_property
    def gallery(self) -> tuple[list[str], Tensor]:
        """Ids and images (N, C, H, W) of the split, those that can be read.

        As uint8: nothing is lost, for images are whole multiples of 1/255.
        """
        readable = self.data.readable(range(len(self.data)))
        images = torch.stack([(self.data[i][0] * 255).round().byte() for i in readable])
        return [self.data.ids[i] for i in readable], images

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Attack) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        self.started = time.perf_counter()

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: Trainer, pl_module: Attack) -> None:
        """Hand over what was found. Whatever needs the victim happens here, for the attack goes on with it."""
        result = pl_module.result()
        module: GradientDataModule = trainer.datamodule
        seconds = (time.perf_counter() - self.started) / len(module.tasks)
        memory = peak_memory(module.victim.mean.device)
        before, self.handed = self.handed, []
        for index, task in enumerate(module.tasks):
            pixels = module.victim.denormalize(result.images[index]).cpu()
            errors = layer_errors(module.victim, task.images[0], result.layers[index]) if result.layers else None
            found = {
                "cost": float(result.cost[index]),
                "gradient_evaluations": result.gradient_evaluations,
                "seconds": round(seconds, 3),
                "memory": memory,
                **label_scores(module.victim, task, result.labels[index]),
            }
            self.handed.append(self.executor.submit(self.record, task, result, index, errors, pixels, found))
        self.wait(before)  # they had the time of an attack; waiting here, if need be, bounds what is held

    def on_train_end(self, trainer: Trainer, pl_module: Attack) -> None:
        self.wait(self.handed)

    def on_exception(self, trainer: Trainer, pl_module: Attack, exception: BaseException) -> None:
        self.executor.shutdown()  # nothing that was measured is lost

    @staticmethod
    def wait(handed: Sequence[Future]) -> None:
        """Wait for what was handed over; what went wrong there is raised here."""
        for written in handed:
            written.result()

    def record(
        self,
        task: Task,
        result: Reconstruction,
        index: int,
        errors: Errors | None,
        pixels: Tensor,
        found: Mapping[str, Any],
    ) -> None:
        """All of one task."""
        self.write_curve(task, result, index)
        if errors is not None:
            write_layers(self.folder, task.observation.task, result.layers[index], errors)
        self.write(task, pixels, found)

    @torch.no_grad()
    def write(self, task: Task, pixels: Tensor, found: Mapping[str, Any]) -> None:
        """Score images (B, C, H, W) of one task; keep its pictures, and rows that hold what else was `found`."""
        aligned, scores = score(pixels, task.images, self.lpips)
        ids, gallery = self.gallery
        places = torch.tensor([ids.index(sample_id) for sample_id in task.sample_ids])
        scores["iip"] = identified(aligned, gallery, places).tolist()
        for name in ("reconstructions", "truth"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for sample_id, image, truth in zip(task.sample_ids, aligned, task.images, strict=True):
            save_image(image, picture_path(self.folder, task.observation.task, sample_id))
            save_image(truth, self.folder / "truth" / f"{sample_id}.png")  # the board has result files alone
        finite = math.isfinite(found["cost"])
        rows = [
            self.make_row(
                task=task.observation.task,
                image=sample_id,
                label=int(label),
                status="ok" if finite else "diverged",
                **{**found, "cost": found["cost"] if finite else None},
                scores={name: values[k] for name, values in scores.items()},
                higher_is_better=HIGHER_IS_BETTER,
            )
            for k, (sample_id, label) in enumerate(zip(task.sample_ids, task.labels, strict=True))
        ]
        self.store.add(task.observation.task, rows)

    def write_curve(self, task: Task, result: Reconstruction, index: int) -> None:
        folder = self.folder / "curves"
        folder.mkdir(parents=True, exist_ok=True)
        costs = torch.stack([cost for _, cost in result.curve])[:, index].tolist()
        with (folder / f"{task.observation.task}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "stage", "cost"])
            writer.writerows(
                (step, stage, cost) for step, ((stage, _), cost) in enumerate(zip(result.curve, costs, strict=True))
            )


def label_scores(victim: Victim, task: Task, labels: Tensor) -> dict[str, float]:
    """Of the labels that an attack used, by their names in a row."""
    one_logit = victim.logits(victim.parameters, task.images[:1].to(victim.mean)).shape[-1] == 1
    accuracies = label_accuracies(labels, task.labels, parity=one_logit)
    return {f"label_{name}": value for name, value in accuracies.items()}


def peak_memory(device: torch.device) -> int:
    """MiB: the most that tensors took on a GPU since the last reset, or that this process took on a CPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes that the system counts in
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def picture_path(folder: Path, task: str, sample_id: str) -> Path:
    """Where the reconstruction of one image lies."""
    return folder / "reconstructions" / f"{task}--{sample_id}.png"
