"""The row: one line of JSON per scored image, with everything needed to run it again.

This is the only module that knows how older versions wrote rows.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from leaderboard.options import Control

PROTOCOL = 3  # raised when numbers of older code cannot be compared with new ones


@dataclass(frozen=True, kw_only=True)
class Row:
    """The scores of one image, and how they were obtained.

    `scores` are by metric, null where there is none, and `higher_is_better` says which direction is better; in a file
    every score is a key of its own, beside the others. `lpips_backbone` is the network of the metric `lpips`, or the
    reason why there is none.
    `cost` is the attacker's own matching cost, null where no start ever had a finite one (`status` = "diverged").
    `label_method` is the method that read the labels from the update, if one did; `label_counts` and `label_existence`
    score the labels that the attack used, null where nothing was attacked.
    `axis` is where the defense stands on the axis along which charts compare it, by the name of the axis; an attack
    without a defense stands at 0 on every axis. `gradient_path` is how the victim's gradients were computed.
    `seconds` is the time of the task. `memory` is the peak until the end of the task in MiB: on a GPU that of tensors
    since the group of the task began, on a CPU that of the whole process since its start.
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
    scores: Mapping[str, float | None]
    higher_is_better: Mapping[str, bool]
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
    gradient_path: str = ""
    axis: Mapping[str, float] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """The row as it stands in a file."""
        values = asdict(self)
        scores = values.pop("scores")
        return values | scores


def read_rows(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of one file, and one warning for each line that is none.

    A torn or foreign line is left out with a warning; the other lines are kept.
    """
    rows, warnings = [], []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            warnings.append(f"{path}:{number} is not a whole row (torn write?); left out, run it again.")
            continue
        try:
            row = _updated(row)
            whole = row.keys() >= REQUIRED | row["higher_is_better"].keys()
        except (TypeError, KeyError, AttributeError):
            whole = False
        if whole:
            rows.append(row)
        else:
            warnings.append(f"{path}:{number} is not a row of this version of the suite; left out.")
    return rows, warnings


# Rows that older versions wrote

LATER = {each.name: each.default for each in fields(Row) if each.default is not MISSING}  # keys that they may lack
REQUIRED = {each.name for each in fields(Row)} - LATER.keys() - {"scores"}
ALWAYS_SCORED = {"psnr": True, "ssim": True, "fsim": True, "lpips": False, "mse": False, "iip": True}


def _updated(row: dict[str, Any]) -> dict[str, Any]:
    """A row as this version would have written it."""
    row = renamed({**LATER, "higher_is_better": ALWAYS_SCORED, **row})
    sparsity = re.fullmatch(r"sparsification:([0-9.]+)", row["defense"])
    return {"axis": {"share of the update that is not sent": float(sparsity[1])} if sparsity else {}} | row


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run with the values that are now called otherwise under their present names."""
    found = dict(options)
    if found.get("bn") == "unmixed":
        found["bn"] = "recovered"
    if isinstance(found.get("defense"), str):
        found["defense"] = re.sub(r"(^|\+)quantisation:", r"\1quantization:", found["defense"])
    return found


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
        write_atomically(self.parts / f"{task}.jsonl", "".join(json.dumps(r.line()) + "\n" for r in rows))

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
