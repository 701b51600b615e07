"""Log a finished run to W&B: configuration, cost curves, images with their rows, means, and the files of the run."""

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
NOT_SENT = ("wandb", "log", "lock")  # of a run's folder


def log_run(
    folder: RunFolder,
    rows: list[dict[str, Any]],
    drawn: Mapping[str, Path],
    *,
    config: Mapping[str, Any],
    mode: str,
) -> None:
    """Log the tasks of a run that W&B does not have yet. A failure is one line of warning, not an error.

    The run calls this after its rows are written, and everything is read from disk: so W&B has the tasks of every
    process and of every start of the run, each once.

    Args:
        folder: of the run; its parent is the board that the run belongs to.
        rows: all rows of the run.
        drawn: pictures of the run by name.
        config: kept as the configuration of the run.
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
    except Exception as error:  # the run is complete, and W&B can fail in many ways
        warning = (
            f"W&B does not have this run ({one_line(error)}); its rows are safe, and the same command tries again."
        )
        warnings.warn(warning, Notice, stacklevel=2)


def send(
    folder: RunFolder,
    rows: list[dict[str, Any]],
    new: list[str],
    drawn: Mapping[str, Path],
    config: Mapping[str, Any],
    mode: str,
) -> None:
    """Curves are logged of `new` tasks; everything else replaces what an earlier start of the run has logged."""
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
        run.summary["degenerate"] = sum(row["degenerate"] for row in rows)
        run.log_artifact(result(folder, run.id))


def curves(folder: RunFolder, tasks: list[str]) -> list[dict[str, float]]:
    """For every step, the cost of each task as `cost/<task>`; a mean image has no curve."""
    costs = {f"cost/{task}": curve.costs for task in tasks if (curve := folder.read_curve(task))}
    steps = range(max(map(len, costs.values()), default=0))
    return [{name: curve[step] for name, curve in costs.items() if step < len(curve)} for step in steps]


def images(folder: RunFolder, rows: list[dict[str, Any]]) -> Any:
    """A table with one line per image: truth, reconstruction, and every key of its row."""
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
    """The run's folder as an artifact, from which a board can be made."""
    import wandb

    artifact = wandb.Artifact(f"{RESULT}-{name}", type=RESULT)
    for path in sorted(folder.path.rglob("*")):
        inner = path.relative_to(folder.path)
        if path.is_file() and inner.parts[0] not in NOT_SENT:
            # Curves and pictures of a task are written once, so W&B need not copy them until a sync.
            policy: Literal["mutable", "immutable"] = "mutable" if path.parent == folder.path else "immutable"
            artifact.add_file(str(path), name=inner.as_posix(), policy=policy)
    return artifact
