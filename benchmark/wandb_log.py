"""A finished run to W&B: configuration, cost curves, images with all that their rows say, means, and the rows."""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from leaderboard.run_folder import RunFolder
from leaderboard.wandb_board import RESULT, one_line, start
from victims.errors import Notice

FIRST = ("task", "image", "truth", "reconstruction", "status", "cost")  # columns of the table of images
NOT_SENT = ("wandb", "log")  # of a run's folder


def log_run(
    folder: RunFolder,
    rows: list[dict[str, Any]],
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
        drawn: pictures of the run by name.
        config: what is kept as the run's configuration.
        mode: `online` or `offline`.
    """
    before = folder.read_logged(mode)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    new = [task for task in tasks if task not in before]
    if not new:
        return
    try:
        send(folder, rows, new, drawn, config, mode)
        folder.write_logged(mode, [*before, *new])
    except Exception as error:  # the run is done, and W&B has many ways to fail
        said = f"W&B has not got this run ({one_line(error)}); its rows are safe, and the same command tries again."
        warnings.warn(said, Notice, stacklevel=2)


def send(
    folder: RunFolder,
    rows: list[dict[str, Any]],
    new: list[str],
    drawn: Mapping[str, Path],
    config: Mapping[str, Any],
    mode: str,
) -> None:
    """Everything but the curves replaces what an earlier time has logged; curves are those of `new` tasks."""
    import wandb

    project, group = os.environ.get("WANDB_PROJECT", "gibench"), folder.path.resolve().parent.name
    named = {"project": project, "group": group, "name": folder.path.name}
    with start(folder.path, **named, kind="attack", config=config, mode=mode) as run:
        run.define_metric("step", hidden=True)
        run.define_metric("cost/*", step_metric="step", summary="none")
        for step, costs in enumerate(curves(folder, new)):
            run.log({"step": step, **costs})
        pictures = {name: wandb.Image(str(path)) for name, path in drawn.items()}
        run.log({"images": images(folder, rows), **pictures})
        for name in (*rows[0]["higher_is_better"], "cost", "seconds"):
            values = [row[name] for row in rows if row[name] is not None]
            if values:
                run.summary[name] = sum(values) / len(values)
        run.summary["n"] = len(rows)
        run.summary["diverged"] = sum(row["status"] == "diverged" for row in rows)
        run.log_artifact(result(folder, run.id))


def curves(folder: RunFolder, tasks: list[str]) -> list[dict[str, float]]:
    """For every step, the cost of each task that has a curve (a mean image has none): `cost/<task>`."""
    costs = {f"cost/{task}": curve.costs for task in tasks if (curve := folder.read_curve(task))}
    steps = range(max(map(len, costs.values()), default=0))
    return [{name: curve[step] for name, curve in costs.items() if step < len(curve)} for step in steps]


def images(folder: RunFolder, rows: list[dict[str, Any]]) -> Any:
    """Table of one line per image: truth, reconstruction, and every field of its row."""
    import wandb

    first = [*FIRST, *rows[0]["higher_is_better"]]
    columns = [*first, *(name for name in rows[0] if name not in first)]
    table = wandb.Table(columns=columns)
    for row in rows:
        pictures = {
            "truth": wandb.Image(str(folder.truth(row["image"]))),
            "reconstruction": wandb.Image(str(folder.reconstruction(row["task"], row["image"]))),
        }
        plain = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()}
        cells = {**plain, **pictures}
        table.add_data(*(cells[name] for name in columns))
    return table


def result(folder: RunFolder, name: str) -> Any:
    """Artifact of the run's folder, from which a board is made again."""
    import wandb

    artifact = wandb.Artifact(f"{RESULT}-{name}", type=RESULT)
    for path in sorted(folder.path.rglob("*")):
        inner = path.relative_to(folder.path)
        if path.is_file() and inner.parts[0] not in NOT_SENT:
            # A task's curve and pictures are written once: they need no copy that waits for a sync.
            policy: Literal["mutable", "immutable"] = "mutable" if path.parent == folder.path else "immutable"
            artifact.add_file(str(path), name=inner.as_posix(), policy=policy)
    return artifact
