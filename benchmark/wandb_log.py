"""Log a finished run to W&B: configuration, cost curves, images with their rows, means, and the files of the run.

What each of them shows is in docs/wandb.md.
"""

import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from benchmark.contents import digests
from benchmark.scoring.picture import difference
from benchmark.sources import of_text
from leaderboard.board import Entry, entries
from leaderboard.curves import over_tasks
from leaderboard.rows import FlatRow
from leaderboard.run_folder import RunFolder
from leaderboard.settings import plainly
from leaderboard.wandb_board import RESULT, means, one_line, rows_table, start
from victims.errors import Notice

FIRST = ("task", "image", "truth", "reconstruction", "difference", "status", "cost")  # of the table of images
LONGEST = 64  # characters of a tag
PLACES = ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_BASE_URL")
NOT_SENT = ("wandb", "log", "lock")  # of a run's folder


def log_run(
    folder: RunFolder,
    rows: list[FlatRow],
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
    place = place_of(mode)
    before = folder.read_logged(place)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    new = [task for task in tasks if task not in before]
    if not new:
        return
    try:
        send(folder, rows, new, drawn, config, mode)
        folder.write_logged(place, [*before, *new])
    except Exception as error:  # the run is complete, and W&B can fail in many ways
        warning = (
            f"W&B does not have this run ({one_line(error)}); its rows are safe, and the same command tries again."
        )
        warnings.warn(warning, Notice, stacklevel=2)


def place_of(mode: str) -> str:
    """Where a run is logged, as part of a file's name: another project, entity or server does not have its tasks."""
    named = {name: os.environ[name] for name in PLACES if os.environ.get(name)}
    return f"{mode}-{of_text(named)}" if named else mode


def send(
    folder: RunFolder,
    rows: list[FlatRow],
    new: list[str],
    drawn: Mapping[str, Path],
    config: Mapping[str, Any],
    mode: str,
) -> None:
    """Curves are logged of `new` tasks; everything else replaces what an earlier start of the run has logged."""
    import wandb

    entry, track = whole(rows)
    named = {"project": os.environ.get("WANDB_PROJECT", "gibench"), "name": folder.path.name, "kind": "attack"}
    named |= {"board": folder.path.resolve().parent.name, "group": Path(track).stem or plainly(entry)}
    named |= {"contents": of_text(digests(folder.read_contents() or {}))}  # without its tasks, which may be added to
    with start(folder.path, **named, tags=[entry["defense"][:LONGEST]], config=config, mode=mode) as run:
        run.define_metric("step", hidden=True)
        run.define_metric("cost/*", step_metric="step", summary="none")
        for step, costs in enumerate(curves(folder, new)):
            run.log({"step": step, **costs})
        pictures = {name: wandb.Image(str(path)) for name, path in drawn.items()}
        run.log({"images": images(folder, rows), **cost_by_step(folder, rows), **pictures})
        run.summary.update(means(entry))
        run.log_artifact(result(folder, run.id))


def whole(rows: list[FlatRow]) -> tuple[Entry, str]:
    """All rows of a run as one entry, and the track, or its file, if all of them are within its budget."""
    tracks = {row["track"] for row in rows}
    track = tracks.pop() if len(tracks) == 1 else ""
    (entry,) = entries([row | {"track": track} for row in rows])
    return entry, track


def cost_by_step(folder: RunFolder, rows: list[FlatRow]) -> dict[str, Any]:
    """One chart of the attacker's cost by step, as quartiles over all tasks; none where nothing was attacked."""
    import wandb

    curve, _ = over_tasks((folder, task) for task in dict.fromkeys(row["task"] for row in rows))
    if curve is None:
        return {}
    lines = {"median": curve["median"], "lower quartile": curve["low"], "upper quartile": curve["high"]}
    title = f"The attacker's cost by step, {curve['tasks']} tasks"
    return {"cost_by_step": wandb.plot.line_series(curve["steps"], lines.values(), [*lines], title, "step")}


def curves(folder: RunFolder, tasks: list[str]) -> list[dict[str, float]]:
    """For every step, the cost of each task as `cost/<task>`; a mean image has no curve. A damaged one is left out."""
    costs = {}
    for task in tasks:
        with suppress(OSError, ValueError):
            if curve := folder.read_curve(task):
                costs[f"cost/{task}"] = curve.costs
    steps = range(max(map(len, costs.values()), default=0))
    return [{name: curve[step] for name, curve in costs.items() if step < len(curve)} for step in steps]


def images(folder: RunFolder, rows: list[FlatRow]) -> Any:
    """A table with one line per image: truth, reconstruction, their difference, and every key of its row."""
    import wandb

    def pictures(row: FlatRow) -> dict[str, Any]:
        truth, ours = folder.truth(row["image"]), folder.reconstruction(row["task"], row["image"])
        files = {"truth": str(truth), "reconstruction": str(ours), "difference": difference(truth, ours)}
        return {name: wandb.Image(file) for name, file in files.items()}

    return rows_table(rows, [*FIRST, *rows[0]["higher_is_better"]], pictures)


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
