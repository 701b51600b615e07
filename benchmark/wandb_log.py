"""A finished run to W&B: configuration, cost curves, images with all that their rows say, means, and the rows."""

import csv
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchvision.transforms.functional import to_pil_image

from benchmark.scoring.judge import picture_path
from leaderboard.rows import write_atomically
from leaderboard.wandb_board import RESULT, one_line, start
from victims.data.base import ImageData
from victims.errors import Notice

FIRST = ("task", "image", "truth", "reconstruction", "status", "cost")  # columns of the table of images
NOT_SENT = ("wandb", "log")  # of a run's folder


def log_run(
    folder: Path,
    rows: list[dict[str, Any]],
    data: ImageData,
    drawn: Mapping[str, Path],
    *,
    config: Mapping[str, Any],
    mode: str,
) -> None:
    """Log what W&B has not got of a run: nothing where it has all its tasks. Whatever fails there is one line.

    It is done when the rows are written, from what lies on disk: W&B then has the tasks of every process and of
    every time that the run was started, each once.

    Args:
        folder: the run's; its parent is the board that the run belongs to.
        rows: all of them.
        data: the attacked split.
        drawn: pictures of the run by name.
        config: what is kept as the run's configuration.
        mode: `online` or `offline`.
    """
    logged = folder / "wandb" / f"logged-{mode}.txt"
    before = logged.read_text().splitlines() if logged.is_file() else []
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    new = [task for task in tasks if task not in before]
    if not new:
        return
    try:
        send(folder, rows, new, data, drawn, config, mode)
        write_atomically(logged, "\n".join([*before, *new]))
    except Exception as error:  # the run is done, and W&B has many ways to fail
        said = f"W&B has not got this run ({one_line(error)}); its rows are safe, and the same command tries again."
        warnings.warn(said, Notice, stacklevel=2)


def send(
    folder: Path,
    rows: list[dict[str, Any]],
    new: list[str],
    data: ImageData,
    drawn: Mapping[str, Path],
    config: Mapping[str, Any],
    mode: str,
) -> None:
    """Everything but the curves replaces what an earlier time has logged; curves are those of `new` tasks."""
    import wandb

    project, group = os.environ.get("WANDB_PROJECT", "gibench"), folder.resolve().parent.name
    with start(folder, project=project, group=group, name=folder.name, kind="attack", config=config, mode=mode) as run:
        run.define_metric("step", hidden=True)
        run.define_metric("cost/*", step_metric="step", summary="none")
        for step, costs in enumerate(curves(folder, new)):
            run.log({"step": step, **costs})
        pictures = {name: wandb.Image(str(path)) for name, path in drawn.items()}
        run.log({"images": images(folder, rows, data), **pictures})
        for name in (*rows[0]["higher_is_better"], "cost", "seconds"):
            values = [row[name] for row in rows if row[name] is not None]
            if values:
                run.summary[name] = sum(values) / len(values)
        run.summary["n"] = len(rows)
        run.summary["diverged"] = sum(row["status"] == "diverged" for row in rows)
        run.log_artifact(result(folder, run.id))


def curves(folder: Path, tasks: list[str]) -> list[dict[str, float]]:
    """For every step, the cost of each task that has a curve (a mean image has none): `cost/<task>`."""
    costs: dict[str, list[float]] = {}
    for task in tasks:
        path = folder / "curves" / f"{task}.csv"
        if path.is_file():
            with path.open(newline="") as file:
                costs[f"cost/{task}"] = [float(line["cost"]) for line in csv.DictReader(file)]
    steps = range(max(map(len, costs.values()), default=0))
    return [{name: curve[step] for name, curve in costs.items() if step < len(curve)} for step in steps]


def images(folder: Path, rows: list[dict[str, Any]], data: ImageData) -> Any:
    """Table of one line per image: truth, reconstruction, and every field of its row."""
    import wandb

    first = [*FIRST, *rows[0]["higher_is_better"]]
    columns = [*first, *(name for name in rows[0] if name not in first)]
    table = wandb.Table(columns=columns)
    for row in rows:
        truth, _ = data[data.ids.index(row["image"])]
        pictures = {
            "truth": wandb.Image(to_pil_image(truth.mul(255).round().byte())),  # a tensor's range W&B would guess
            "reconstruction": wandb.Image(str(picture_path(folder, row["task"], row["image"]))),
        }
        plain = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()}
        cells = {**plain, **pictures}
        table.add_data(*(cells[name] for name in columns))
    return table


def result(folder: Path, name: str) -> Any:
    """Artifact of the run's folder, from which a board is made again."""
    import wandb

    artifact = wandb.Artifact(f"{RESULT}-{name}", type=RESULT)
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_file() and inner.parts[0] not in NOT_SENT:
            # A task's curve and pictures are written once: they need no copy that waits for a sync.
            policy = "mutable" if path.parent == folder else "immutable"
            artifact.add_file(str(path), name=inner.as_posix(), policy=policy)
    return artifact
