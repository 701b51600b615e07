"""Rows: one line of JSON per scored image, with everything needed to run it again.

This module imports nothing but the standard library: the leaderboard reads rows through it alone.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

PROTOCOL = 3  # raised whenever a number computed by older code can no longer stand beside a new one

Control = Literal["none", "mean_image", "shuffled_update"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """The scores of one image and what they rest on.

    `psnr` is in dB (capped at 100), `ssim` in [-1, 1], `fsim` in [0, 1], `mse` on [0, 1] images; `lpips` is null
    where its backbone's weights cannot be had, and `lpips_backbone` then says why. `iip` is 1 where no image of the
    split is nearer to the reconstruction than the true one, else 0: its mean is the share of images identified.
    `cost` is the attacker's own matching cost, null where no start ever had a finite one (`status` = "diverged").
    `label_method` is what read the labels from the update, where that was asked for; `label_counts` and
    `label_existence` are `label_accuracy`'s scores of the labels that the attack used, null where nothing was attacked.
    `seconds` is the time of the task. `memory` is the most that the process had taken when the task was done, in
    MiB: on a GPU that of tensors since the task's group began, on a CPU all of the process since its start.
    """

    protocol: int
    attack: str
    preset: str
    control: Control
    prior: str
    prior_trained_on: str
    victim: str
    victim_weights: str
    victim_mode: Literal["eval", "train"]
    data: str
    split: str
    size: int
    task: str
    image: str
    label: int
    batch_size: int
    labels: Literal["given", "inferred", "joint"]
    bn: Literal["none", "running", "recovered", "exact"]
    defense: str
    adapt: bool
    restarts: int
    steps: int
    gradient_evaluations: int
    seed: int
    options: dict[str, Any]
    status: Literal["ok", "diverged"]
    cost: float | None
    psnr: float
    ssim: float
    fsim: float
    lpips: float | None
    mse: float
    iip: float
    lpips_backbone: str
    seconds: float
    memory: int
    device: str
    precision: str
    code: str
    rounds: int = 1
    between: int = 0
    batches: str = "random"
    resize: str = "shorter"
    lr: float | None = None
    epochs: int = 1
    mini_batch: int | None = None
    clients: int = 1
    know_lr: bool = True
    match: str = "aga"
    label_method: str = ""
    label_counts: float | None = None
    label_existence: float | None = None


# name -> higher is better
METRICS = {"psnr": True, "ssim": True, "fsim": True, "lpips": False, "mse": False, "iip": True}


def read_rows(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of one file, and one line of warning for each line that is none.

    A torn or foreign line is left out and reported, never a reason to lose the others.
    """
    rows, warnings = [], []
    later = {field.name: field.default for field in fields(Row) if field.default is not MISSING}  # than older rows
    needed = {field.name for field in fields(Row)} - later.keys()
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            warnings.append(f"{path}:{number} is not a whole row (torn write?); left out, run it again.")
            continue
        if not isinstance(row, dict) or not needed <= row.keys():
            warnings.append(f"{path}:{number} is not a row of this version of the suite; left out.")
        else:
            rows.append({**later, **row})
    return rows, warnings


def write_atomically(path: Path, text: str) -> None:
    """Write so that a reader, or a killed run, sees the old file or the new one and nothing between."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


class RowStore:
    """The rows of one run: a part per finished task while it runs, `rows.jsonl` in task order at the end.

    Any number of processes may add tasks at once; each task is written whole or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.parts = folder / "rows.jsonl", folder / "parts"

    def add(self, task: str, rows: Iterable[Row]) -> None:
        """Keep the rows of one finished task."""
        self.parts.mkdir(parents=True, exist_ok=True)
        write_atomically(self.parts / f"{task}.jsonl", "".join(json.dumps(asdict(r)) + "\n" for r in rows))

    def read(self) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
        """All rows kept so far by task, and warnings about lines that are none."""
        tasks: dict[str, list[dict[str, Any]]] = {}
        warnings: list[str] = []
        for path in [self.file, *sorted(self.parts.glob("*.jsonl"))]:
            if path.is_file():
                rows, torn = read_rows(path)
                warnings += torn
                tasks.update({task: [r for r in rows if r["task"] == task] for task in {r["task"] for r in rows}})
        return {task: rows for task, rows in tasks.items() if len(rows) == rows[0]["batch_size"]}, warnings

    def merge(self, order: Sequence[str]) -> list[dict[str, Any]]:
        """Write `rows.jsonl` in the order of `order`, drop the parts, and return the rows of `order`.

        Tasks that are not in `order`, from a longer run, stay in the file behind the others.
        """
        parts = list(self.parts.glob("*.jsonl"))
        tasks, _ = self.read()
        lines = [row for task in [*order, *sorted(tasks.keys() - set(order))] for row in tasks.get(task, [])]
        write_atomically(self.file, "".join(json.dumps(row) + "\n" for row in lines))
        for part in parts:
            part.unlink()
        if self.parts.is_dir():
            self.parts.rmdir()
        return [row for task in order for row in tasks.get(task, [])]
