"""Scores what a sealed attack left, outside of its process, and says whether the record holds on new images."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor

from benchmark.scoring.metrics import METRICS
from benchmark.scoring.score import score
from benchmark.sealed.confined import Found
from benchmark.sealed.draw import Drawn
from benchmark.sealed.observations import line
from benchmark.tasks.capture import Task
from benchmark.tasks.controls import mean_image
from benchmark.tracks.track import METRIC
from leaderboard import record
from leaderboard.rows import FlatRow
from leaderboard.sentences import decibels
from leaderboard.statistics import Range, Score, clustered_interval, joined, too_few, unpaired
from victims.errors import InputError

ROUNDING, OF_COLOR = 1e-3, 1e-5
"""How far a claimed cost may be from the one that is computed: this share of it, and this of what the mean color costs.
Measured on one machine, with 19 methods: 1e-7 of it at most. Other machines round otherwise."""


def results(content: Mapping[str, Any], tasks: int) -> list[Found]:
    """What an attack wrote of every task, of which nothing is known yet.

    Raises:
        InputError: it is not one result for each task.
    """
    found = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(found, list) or len(found) != tasks or not all(isinstance(each, dict) for each in found):
        raise InputError(f"the attack did not leave a result for each of {tasks} tasks; attack again.")
    return found


def judged(drawn: Drawn, found: Sequence[Found]) -> list[FlatRow]:
    """A row for every image: its scores, those of the mean image as `control`, and what the attack claims.

    A task that failed, or whose result is none, scores as a failure; `status` says why.
    """
    mean = mean_image(drawn.config.make_data("train"))
    return [row for pair in zip(drawn.tasks, found, strict=True) for row in rows_of_task(*pair, mean)]


def rows_of_task(task: Task, found: Found, mean: Tensor) -> Iterator[FlatRow]:
    status = line(found["error"]) if "error" in found else wrong(task, found)
    images = task.images if status else task.victim.denormalize(found["images"].float().to(task.victim.mean))
    _, scores = score(images, task.images, failed=bool(status))
    _, control = score(mean.expand_as(task.images), task.images)
    for place, image in enumerate(task.sample_ids):
        yield {
            "task": task.observation.task,
            "image": image,
            "status": status or "ok",
            "claimed_cost": None if status else found["cost"],
            "claimed_evaluations": None if status else found["evaluations"],
            "control": control[METRIC][place],
            **{name: values[place] for name, values in scores.items()},
        }


def wrong(task: Task, found: Found) -> str:
    """Why what was found cannot be scored; empty where it can."""
    images, cost, evaluations = (found.get(name) for name in ("images", "cost", "evaluations"))
    if not dense(images) or images.shape != task.images.shape:
        return f"no images of the shape {tuple(task.images.shape)}"
    if not finite(cost) or not images.float().isfinite().all():
        return "diverged"
    return "" if type(evaluations) is int and evaluations >= 0 else "no number of victim gradients"


def dense(images: Any) -> TypeGuard[Tensor]:
    """Whether these are numbers, one for each place."""
    if not isinstance(images, Tensor) or images.layout is not torch.strided or images.is_meta or images.is_nested:
        return False
    return images.is_floating_point()


def finite(number: Any) -> TypeGuard[float]:
    return type(number) is float and math.isfinite(number)


def of_rows(rows: Iterable[FlatRow], key: str) -> Score:
    """The mean of a score over images, with its interval over tasks."""
    rows = list(rows)
    return over_tasks(rows, [row[key] for row in rows], METRICS[METRIC].range)


def over_tasks(rows: Sequence[FlatRow], values: Sequence[float], range: Range) -> Score:
    """The mean of a value of each row, with its interval over tasks; those that share images count as one."""
    tasks = [row["task"] for row in rows]
    clusters = joined(zip(tasks, (row["image"] for row in rows), strict=True))
    found = clustered_interval(values, [clusters[task] for task in tasks], range)
    return found._replace(batches=len(set(tasks)))


def against_control(rows: Sequence[FlatRow]) -> str:
    """Whether images leaked, by the paired differences from the mean image."""
    low, high = METRICS[METRIC].range
    found = over_tasks(rows, [row[METRIC] - row["control"] for row in rows], (low - high, high - low))
    if reason := too_few(found):
        return f"no verdict: {reason}"
    return "better than the mean image" if found.low > 0 else "no better than the mean image"


def against_record(rows: Sequence[FlatRow], recorded: Sequence[FlatRow], version: int) -> tuple[bool, str]:
    """Whether new images contradict the record, and the difference from it in words.

    Args:
        version: of the track.
    """
    if not recorded:
        return False, "no record to compare with"
    if reason := record.stale(recorded, version):
        return False, f"no verdict: the record is stale, {reason}"
    found = unpaired(of_rows(rows, METRIC), of_rows(recorded, METRIC))
    difference = f"{decibels(found, '+')} from the record"
    if reason := too_few(found):
        return False, f"{difference}, no verdict: {reason}"
    if found.high < 0:
        return True, f"{difference}: it does not hold on new images"
    return False, f"{difference}: {'above it' if found.low > 0 else 'no difference shown'}"


def against_claims(rows: Sequence[FlatRow], computed: Sequence[Found]) -> tuple[bool, str]:
    """Whether a claimed cost is not that of its reconstruction, or that cannot be told, and what was found in words.

    Args:
        computed: of every task, see `benchmark.sealed.confined.cost`.
    """
    claims = {row["task"]: row["claimed_cost"] for row in rows}
    given = {task: of for task, of in zip(claims, computed, strict=True) if claims[task] is not None and of}
    again = {task: of for task, of in given.items() if finite(of.get("cost")) and finite(of.get("of_mean_color"))}
    wrong = [
        f"{task} claims {claims[task]:.6g} and costs {of['cost']:.6g}"
        for task, of in again.items()
        if not abs(claims[task] - of["cost"]) <= ROUNDING * abs(of["cost"]) + OF_COLOR * abs(of["of_mean_color"])
    ]
    wrong += [f"{task} has none: {line(of.get('error'))}" for task, of in given.items() if task not in again]
    said = f"computed again for {len(again)} of {len(claims)} tasks"
    return bool(wrong), f"{said}: {'; '.join(wrong) or 'as claimed'}" if given else said
