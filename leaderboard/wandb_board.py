"""Boards in W&B: download the runs of a project, and log a board as a run.

W&B is imported where it is used, because its import is slow.
"""

import csv
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaderboard import record
from leaderboard.board import Entry, entries
from leaderboard.rows import KINDS, FlatRow
from victims.errors import InputError

if TYPE_CHECKING:
    import wandb

RESULT = "result"  # type of the artifact that holds the folder of a run
BOARD = "leaderboard"
RECORD = "record"
MOST = 128  # characters of a group


def download(project: str, group: str | None, out: Path) -> None:
    """Download the result of every run into a folder of `out` named by its id; report runs without a result on stderr.

    Args:
        project: ENTITY/PROJECT.
        group: download only the runs of this group, a track or a setting in words.
        out: created if it is missing.

    Raises:
        InputError: there is no API key, project, connection, or run with rows.
    """
    import wandb

    split(project)
    need_key()
    found = False
    try:
        for run in wandb.Api().runs(project, filters={"group": group} if group else None):
            logged = list(run.logged_artifacts())
            results = [artifact for artifact in logged if artifact.type == RESULT]
            if results:  # the last one is complete: a run logs its result again whenever tasks were added
                last = max(results, key=lambda artifact: int(artifact.version.removeprefix("v")))
                last.download(root=str(out / re.sub(r"[^\w-]", "_", run.id)))
                found = True
            elif not any(artifact.type == BOARD for artifact in logged):
                print(f"leaderboard: W&B run {run.name} ({run.id}) has no rows; left out.", file=sys.stderr)
    except Exception as error:  # W&B, the network and the disk can fail in many ways
        raise InputError(
            f"cannot read {project} from W&B ({one_line(error)}); check its name, key and network."
        ) from None
    if not found:
        raise InputError(f"no run of {project}{f' in group {group}' if group else ''} has rows in W&B.")


def upload(project: str, group: str | None, out: Path) -> None:
    """Log the board in `out`, and the record beside it: as tables, and as artifacts.

    Args:
        project: ENTITY/PROJECT.
        group: of the board; by default the name of `out`.
        out: holds `leaderboard.csv` and the other files of that name.

    Raises:
        InputError: W&B does not accept the board, or a file of the record is damaged.
    """
    import wandb

    entity, name = split(project)
    kept = list(record.read())
    heading, *lines = csv.reader((out / "leaderboard.csv").read_text().splitlines())
    cells = [list(map(value, heading, line)) for line in lines]
    try:
        with start(out, entity=entity, project=name, board=group or out.resolve().name, name=BOARD, kind=BOARD) as run:
            board = wandb.Table(columns=[*heading], data=cells, allow_mixed_types=True)
            run.log({BOARD: board, RECORD: of_methods(kept)})
            files = wandb.Artifact(f"{BOARD}-{run.id}", type=BOARD)
            for path in sorted(out.glob("leaderboard.*")):
                files.add_file(str(path))
            run.log_artifact(files)
            rows = wandb.Artifact(RECORD, type=RECORD)
            for track in sorted({each.track for each in kept}):
                rows.add(rows_table([row for each in kept if each.track == track for row in each.rows]), track)
            run.log_artifact(rows)
    except Exception as error:  # as above
        raise InputError(
            f"cannot log to {project} in W&B ({one_line(error)}); check its name, key and network."
        ) from None


def of_methods(kept: Sequence[record.Kept]) -> "wandb.Table":
    """The record as a table: a line for every method of a track, with its first images, truth above reconstruction."""
    import wandb
    from PIL import Image

    found = []
    for each in kept:
        (entry,) = entries(each.rows)
        strip = record.picture(each.track, each.method)
        shown = wandb.Image(Image.open(strip)) if strip.is_file() else None
        found.append({"track": each.track, "method": each.method, "images": shown, **means(entry)})
    return as_table(found)


def rows_table(
    rows: Sequence[FlatRow], first: Sequence[str] = (), pictures: Callable[[FlatRow], dict[str, Any]] = lambda row: {}
) -> "wandb.Table":
    """A table with one line per image: every key of its row, and its pictures.

    Args:
        first: these columns precede the others.
        pictures: of a row, by the name of their column.
    """
    return as_table([pictures(row) | {key: _cell(value) for key, value in row.items()} for row in rows], first)


def as_table(lines: Sequence[Mapping[str, Any]], first: Sequence[str] = ()) -> "wandb.Table":
    """Lines by the names of their columns, which need not be in every line."""
    import wandb

    columns = list(dict.fromkeys([*first, *(key for line in lines for key in line)]))
    data = [[line.get(key) for key in columns] for line in lines]
    return wandb.Table(columns=[*columns], data=data, allow_mixed_types=True)


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def means(entry: Entry) -> dict[str, float]:
    """The summary of an entry, flat: `psnr/mean`, `psnr/low`, `psnr/high` and `psnr/n` for every metric, and counts.

    What is not known, such as the interval of a single batch, is left out.
    """
    found: dict[str, float] = {"n": entry.n, "tasks": entry.tasks}
    found |= {"diverged": entry.diverged, "degenerate": entry.degenerate}
    found |= {"seconds/task": entry.seconds, "gradients/task": entry.gradient_evaluations}
    for name, score in entry.scores.items():
        if score:
            ends = {"mean": score.mean, "low": score.low, "high": score.high, "n": score.n}
            found |= {f"{name}/{end}": number for end, number in ends.items() if not isnan(number)}
    return found


def require(project: str) -> None:
    """Check that a board can be logged to a project, as far as this machine knows.

    Raises:
        InputError: `project` is not ENTITY/PROJECT, or there is no API key.
    """
    split(project)
    if os.environ.get("WANDB_MODE") != "offline":
        need_key()


def start(
    folder: Path,
    *,
    project: str,
    board: str,
    name: str,
    kind: str,
    contents: str = "",
    group: str | None = None,
    config: Mapping[str, Any] | None = None,
    **how: Any,
) -> "wandb.Run":
    """A W&B run: the same `board`, `name` and `contents` give the same run.

    Args:
        folder: gets W&B's files.
        board: the name of the folder that the run belongs to.
        contents: a digest of what the rows are of.
        group: by default the board.
        how: further arguments of `wandb.init`.
    """
    import wandb

    # Otherwise files that wait for a sync lie in the home directory and stay there when the results are deleted.
    os.environ["WANDB_DATA_DIR"] = str(folder.resolve() / "wandb")
    return wandb.init(
        project=project,
        group=(group or board)[:MOST],
        name=name,
        job_type=kind,
        id=hashlib.sha256(f"{board}/{name}{contents}".encode()).hexdigest()[:16],
        resume="allow",
        dir=folder,
        config=dict(config or {}),
        settings=wandb.Settings(silent=True, console="off"),
        **how,
    )


def need_key() -> None:
    """Check that W&B has an API key.

    Raises:
        InputError: there is no API key, or it or another variable of W&B is malformed.
    """
    import wandb

    try:
        wandb.setup(settings=wandb.Settings(silent=True))
        found = wandb.login(prompt=False, verify=False)
    except wandb.Error as error:
        raise InputError(f"W&B online needs an API key ({one_line(error)}); run `wandb login`.") from None
    except ValueError as error:  # pydantic's, which says nothing of the environment
        raise InputError(f"W&B cannot be set up ({one_line(error)}); fix the variables WANDB_...") from None
    if not found:
        raise InputError("W&B online needs an API key; run `wandb login`, or set WANDB_API_KEY.")


def split(project: str) -> tuple[str, str]:
    """ENTITY and PROJECT of ENTITY/PROJECT.

    Raises:
        InputError: `project` has another form.
    """
    entity, _, name = project.partition("/")
    if not entity or not name or "/" in name:
        raise InputError(f"'{project}' is not a W&B project; write ENTITY/PROJECT.")
    return entity, name


def value(key: str, cell: str) -> float | str | None:
    """The value of a CSV cell, None for an empty one. A digest such as 1e345678 is a text, whatever it looks like."""
    try:
        return (str if str in KINDS.get(key, ()) else float)(cell) if cell else None
    except ValueError:
        return cell


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
