"""Boards in W&B: download the runs of a project, and log a board as a run.

W&B is imported where it is used, because its import is slow.
"""

import csv
import hashlib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaderboard.rows import KINDS
from victims.errors import InputError

if TYPE_CHECKING:
    import wandb

RESULT = "result"  # type of the artifact that holds the folder of a run
BOARD = "leaderboard"


def download(project: str, group: str | None, out: Path) -> None:
    """Download the result of every run into a folder of `out` named by its id; report runs without a result on stderr.

    Args:
        project: ENTITY/PROJECT.
        group: download only the runs of this group.
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
    except (wandb.Error, ValueError, OSError) as error:
        raise InputError(f"cannot read {project} from W&B ({one_line(error)}); check its name and the key.") from None
    if not found:
        raise InputError(f"no run of {project}{f' in group {group}' if group else ''} has rows in W&B.")


def upload(project: str, group: str | None, out: Path) -> None:
    """Log the board in `out`: its CSV as a table, its files as an artifact.

    Args:
        project: ENTITY/PROJECT.
        group: of the board; by default the name of `out`.
        out: holds `leaderboard.csv` and the other files of that name.

    Raises:
        InputError: there is no API key, or W&B does not accept the board.
    """
    import wandb

    entity, name = split(project)
    if os.environ.get("WANDB_MODE") != "offline":
        need_key()
    group = group or out.resolve().name
    try:
        with start(out, entity=entity, project=name, group=group, name=BOARD, kind=BOARD) as run:
            heading, *lines = csv.reader((out / "leaderboard.csv").read_text().splitlines())
            cells = [list(map(value, heading, line)) for line in lines]
            run.log({BOARD: wandb.Table(columns=[*heading], data=cells, allow_mixed_types=True)})
            artifact = wandb.Artifact(f"{BOARD}-{run.id}", type=BOARD)
            for path in sorted(out.glob("leaderboard.*")):
                artifact.add_file(str(path))
            run.log_artifact(artifact)
    except wandb.Error as error:
        raise InputError(f"cannot log to {project} in W&B ({one_line(error)}); check its name and the key.") from None


def start(
    folder: Path, *, project: str, group: str, name: str, kind: str, config: Mapping[str, Any] | None = None, **how: Any
) -> "wandb.Run":
    """A W&B run: the same `group` and `name` give the same run. `how` has further arguments of `wandb.init`."""
    import wandb

    # Otherwise files that wait for a sync lie in the home directory and stay there when the results are deleted.
    os.environ["WANDB_DATA_DIR"] = str(folder.resolve() / "wandb")
    return wandb.init(
        project=project,
        group=group,
        name=name,
        job_type=kind,
        id=hashlib.sha256(f"{group}/{name}".encode()).hexdigest()[:16],
        resume="allow",
        dir=folder,
        config=dict(config or {}),
        settings=wandb.Settings(silent=True, console="off"),
        **how,
    )


def need_key() -> None:
    """Check that W&B has an API key.

    Raises:
        InputError: there is no API key, or it is malformed.
    """
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True))
    try:
        found = wandb.login(prompt=False, verify=False)
    except wandb.Error as error:
        raise InputError(f"W&B online needs an API key ({one_line(error)}); run `wandb login`.") from None
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
