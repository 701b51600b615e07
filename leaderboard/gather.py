"""The rows of every run below a folder, and what is missing there."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from leaderboard.rows import FlatRow, has_numbers
from leaderboard.run_folder import TRIALS, RunFolder, find_runs
from victims.errors import InputError


class Gathered(NamedTuple):
    """Rows, the folder of the run that wrote each row, and one line for everything that is torn or missing."""

    rows: list[FlatRow]
    folders: list[Path]
    warnings: list[str]


def gather(out: Path) -> Gathered:
    """The rows of all runs in `out` and below it, complete or not; without trials of tuning, which score nothing.

    Raises:
        InputError: the folder does not exist, or it holds no rows.
    """
    if not out.is_dir():
        raise InputError(f"no such folder: {out}. Give the folder that a benchmark run wrote.")
    found = Gathered([], [], [])
    runs = [run for run in find_runs(out) if not run.path.is_relative_to(out / TRIALS)]
    for run in runs:
        rows, warnings = run.read_rows()
        whole = [row for row in rows if has_numbers(row)]
        if len(whole) < len(rows):
            warnings.append(f"{run.path}: {len(rows) - len(whole)} rows have a score that is not a number; left out.")
        if run.config_file.exists() and run.read_config() is None:
            warnings.append(f"{run.config_file} does not hold the options of a run; left out.")
        found.rows.extend(whole)
        found.folders.extend([run.path] * len(whole))
        found.warnings.extend(warnings)
    found.warnings.extend(_unfinished(runs, found))
    found.rows[:] = _told_apart(found.rows, found.folders)
    if not found.rows:
        raise InputError(f"no rows under {out}: found no whole line in any rows.jsonl or parts/*.jsonl.")
    return found


def _unfinished(runs: Iterable[RunFolder], found: Gathered) -> list[str]:
    """Runs that have fewer tasks than they were asked for."""
    tasks: dict[Path, set[str]] = {run.path: set() for run in runs}
    for folder, row in zip(found.folders, found.rows, strict=True):
        tasks[folder].add(row["task"])
    warnings = []
    for folder, done in tasks.items():
        asked = (RunFolder(folder).read_config() or {}).get("tasks")
        if isinstance(asked, int) and len(done) < asked:
            warnings.append(f"{folder} has rows of {len(done)} of its {asked} tasks; run it again to complete it.")
    return warnings


def _told_apart(rows: Sequence[FlatRow], folders: Sequence[Path]) -> list[FlatRow]:
    """The rows, where runs that disagree about an image of the same name have different data: another `data_digest`."""
    runs: dict[Path, dict[tuple[str, str, str], str]] = defaultdict(dict)
    for row, folder in zip(rows, folders, strict=True):
        if row["image_digest"]:
            runs[folder][str(row["channels"]), row["task"], row["image"]] = row["image_digest"]
    contents: list[dict[tuple[str, str, str], str]] = []
    place = dict.fromkeys(folders, 0)
    for folder in sorted(runs, key=lambda folder: sorted(runs[folder].items())):
        images = runs[folder]
        fits = [
            i for i, known in enumerate(contents) if all(known.get(key, images[key]) == images[key] for key in images)
        ]
        place[folder] = fits[0] if fits else len(contents)
        contents += [] if fits else [{}]
        contents[place[folder]] |= images
    return [
        row | {"data_digest": f"{row['data_digest']}-{place[folder] + 1}"} if place[folder] else row
        for row, folder in zip(rows, folders, strict=True)
    ]
