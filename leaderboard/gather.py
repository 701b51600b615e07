"""The rows of every run under a folder, and what is missing there."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from leaderboard.board import Row
from leaderboard.rows import METRICS, read_rows
from victims.errors import InputError


class Gathered(NamedTuple):
    """Rows, the folder of the run that wrote each, and one line for each thing that is torn or missing."""

    rows: list[Row]
    folders: list[Path]
    warning_lines: list[str]


def gather(out: Path) -> Gathered:
    """The rows of finished and unfinished runs anywhere under `out`.

    Raises:
        InputError: there is no such folder, or no row in it.
    """
    if not out.is_dir():
        raise InputError(f"no such folder: {out}. Give the folder that a benchmark run wrote.")
    found = Gathered([], [], [])
    for path in sorted([*out.rglob("rows.jsonl"), *out.rglob("parts/*.jsonl")]):
        try:
            rows, warning_lines = read_rows(path)
        except OSError as error:
            rows, warning_lines = [], [f"{path} cannot be read ({error.strerror}); left out."]
        whole = [row for row in rows if _has_numbers(row)]
        if len(whole) < len(rows):
            warning_lines.append(f"{path}: {len(rows) - len(whole)} rows have a score that is no number; left out.")
        found.rows.extend(whole)
        found.folders.extend([path.parent.parent if path.parent.name == "parts" else path.parent] * len(whole))
        found.warning_lines.extend(warning_lines)
    found.warning_lines.extend(_unfinished(out, found))
    if not found.rows:
        raise InputError(f"no rows under {out}: found no whole line in any rows.jsonl or parts/*.jsonl.")
    return found


def read_config(folder: Path) -> dict[str, Any] | None:
    """The options of a run; None where its config.yaml is not there, or holds no options."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return config if isinstance(config, dict) and "attack" in config else None


def _unfinished(out: Path, found: Gathered) -> list[str]:
    """Runs that were begun under `out`, and have fewer tasks than were asked for."""
    tasks: dict[Path, set[str]] = {path.parent: set() for path in sorted(out.rglob("config.yaml"))}
    warning_lines = []
    for folder, row in zip(found.folders, found.rows, strict=True):
        tasks.setdefault(folder, set()).add(row["task"])
    for folder, done in tasks.items():
        asked = (read_config(folder) or {}).get("tasks")
        if isinstance(asked, int) and len(done) < asked:
            warning_lines.append(f"{folder} has rows of {len(done)} of its {asked} tasks; run it again to complete it.")
    return warning_lines


def _has_numbers(row: Row) -> bool:
    return all(row[key] is None or isinstance(row[key], int | float) for key in (*METRICS, "seconds", "cost"))
