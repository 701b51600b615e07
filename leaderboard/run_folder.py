"""The folder of one run: this module alone reads and writes the files in it.

    config.yaml                             the options of the run
    contents.json                           digests of the code, weights and images that its rows are of
    rows.jsonl                              one row per image, in the order of the tasks, once the run is complete
    parts/TASK.jsonl                        the rows of one task until then
    curves/TASK.csv                         the attacker's cost by step
    layers/TASK.csv                         equations, rank and error of each layer, by a layer-by-layer attack
    reconstructions/TASK--IMAGE.png         the rebuilt image
    truth/IMAGE.png                         the private image, once the run is complete
    picture.png, curves.png, layers.png     drawings of the above
    lock                                    host and process that work in the folder, during the run
    processes/RANK                          heartbeat of each process, during the run
    wandb/                                  files of W&B, and the tasks that were logged

It works without torch, because the board reads these files without torch.
"""

import contextlib
import csv
import io
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from leaderboard.files import file_name, flat_name, write_atomically
from leaderboard.foreign import checked, contents
from leaderboard.rows import FlatRow, Row, read_rows, renamed

ROWS, PARTS, CONFIG, CONTENTS = "rows.jsonl", "parts", "config.yaml", "contents.json"
TRIALS = "tune"  # the folder below all results in which `make tune` tries options

Contents = dict[str, dict[str, str]]
"""The beginning of the SHA-256 of every file, state dict or batch of images that went into a run, by what messages call
it, for each of `attack`, `prior`, `victim`, `defense`, `data` and `tasks`."""


class Curve(NamedTuple):
    """The attacker's cost at every step, and the stage that the step belongs to."""

    stages: list[str]
    costs: list[float]


class RunFolder:
    """The files of one run.

    Any number of processes may add tasks at the same time. Every file is written whole or not at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows_file, self.config_file = path / ROWS, path / CONFIG
        self.processes = path / "processes"

    # Options

    def write_config(self, text: str) -> None:
        """Keep the options, as YAML."""
        self._write(self.config_file, text)

    def read_config(self) -> dict[str, Any] | None:
        """The options; None where config.yaml is missing or holds no options: scalars and lists of them, by name."""
        try:
            config = yaml.safe_load(contents(self.config_file))
            if not isinstance(config, dict) or "attack" not in config:
                return None
            return renamed(checked(config, levels=3))
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            return None

    # Contents

    def write_contents(self, found: Contents) -> None:
        """Keep what the rows of this folder are of."""
        self._write(self.path / CONTENTS, json.dumps(found, indent=1))

    def read_contents(self) -> Contents | None:
        """What the rows of this folder are of; None where that is not known."""
        try:
            found = checked(json.loads(contents(self.path / CONTENTS)), levels=3)
            return {kind: {what: str(digest) for what, digest in parts.items()} for kind, parts in found.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return None

    # Rows

    def has_rows(self) -> bool:
        return self.rows_file.exists() or bool(self._parts())

    def add_rows(self, task: str, rows: Iterable[Row]) -> None:
        """Keep the rows of one finished task."""
        self._write(self.path / PARTS / file_name(task, ".jsonl"), _lines(row.flat() for row in rows))

    def read_rows(self) -> tuple[list[FlatRow], list[str]]:
        """Every row, also of incomplete tasks, and one warning for each line or file that cannot be read."""
        tasks, warnings = self._tasks()
        return [row for rows in tasks.values() for row in rows], warnings

    def read_tasks(self) -> tuple[dict[str, list[FlatRow]], list[str]]:
        """The rows of complete tasks by task, and the same warnings as `read_rows`."""
        tasks, warnings = self._tasks()
        return {task: rows for task, rows in tasks.items() if len(rows) == rows[0]["batch_size"]}, warnings

    def merge_rows(self, order: Sequence[str]) -> list[FlatRow]:
        """Write `rows.jsonl` in the order of `order`, drop the parts, and return the rows of `order`.

        Other tasks, from a longer run, stay in the file at its end.
        """
        parts = self._parts()
        tasks, _ = self.read_tasks()
        kept = [row for task in [*order, *sorted(tasks.keys() - set(order))] for row in tasks.get(task, [])]
        self._write(self.rows_file, _lines(kept))
        for part in parts:
            if part.is_file():
                part.unlink()
        with contextlib.suppress(OSError):  # it may hold what a killed process or another program left there
            (self.path / PARTS).rmdir()
        return [row for task in order for row in tasks.get(task, [])]

    def _tasks(self) -> tuple[dict[str, list[FlatRow]], list[str]]:
        """The rows by task, from a part, which is newer, where there is one; and one warning for each fault.

        `rows.jsonl` is read last, as it holds what another process may have merged and removed meanwhile.
        """
        tasks: dict[str, list[FlatRow]] = {}
        warnings: list[str] = []
        parts = self._parts()
        for path in [*parts, self.rows_file]:
            try:
                rows, torn = read_rows(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                rows, torn = [], [f"{path} cannot be read ({error.strerror}); left out."]
            warnings += torn
            by_task = defaultdict(list)
            for row in rows:
                by_task[row["task"]].append(row)
            tasks = by_task | tasks
        return tasks, warnings

    def _parts(self) -> list[Path]:
        return sorted((self.path / PARTS).glob("*.jsonl"))

    # Tables of one task

    def write_curve(self, task: str, stages: Iterable[str], costs: Iterable[float]) -> None:
        """Keep the attacker's cost by step."""
        steps = [(step, *at) for step, at in enumerate(zip(stages, costs, strict=True))]
        self._write_table(self.curve_file(task), ("step", "stage", "cost"), steps)

    def read_curve(self, task: str) -> Curve | None:
        """The attacker's cost by step; None where the task has no curve.

        Raises:
            ValueError: the file is not a whole curve.
        """
        try:
            steps = [(line["stage"], float(line["cost"])) for line in self._read_table(self.curve_file(task))]
        except (KeyError, TypeError, csv.Error) as error:
            raise ValueError(f"{self.curve_file(task)} is not a whole curve") from error
        except FileNotFoundError:
            return None
        if not steps:
            raise ValueError(f"{self.curve_file(task)} has no step")
        stages, costs = zip(*steps, strict=True)
        return Curve(list(stages), list(costs))

    def curve_file(self, task: str) -> Path:
        return self.path / "curves" / file_name(task, ".csv")

    def write_layers(self, task: str, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
        """Keep one line per layer, in the order of the attack."""
        self._write_table(self.layers_file(task), columns, lines)

    def read_layers(self, task: str) -> list[dict[str, str]]:
        """One dictionary per layer, in the order of the attack; empty where the task has no such file."""
        try:
            return self._read_table(self.layers_file(task))
        except FileNotFoundError:
            return []

    def layers_file(self, task: str) -> Path:
        return self.path / "layers" / file_name(task, ".csv")

    # Pictures

    def write_reconstruction(self, task: str, image: str, png: bytes) -> None:
        self._write(self.reconstruction(task, image), png)

    def write_truth(self, image: str, png: bytes) -> None:
        self._write(self.truth(image), png)

    def reconstruction(self, task: str, image: str) -> Path:
        """The picture of one rebuilt image."""
        return self.path / "reconstructions" / file_name(f"{task}--{flat_name(image)}", ".png")

    def truth(self, image: str) -> Path:
        """The picture of one private image."""
        return self.path / "truth" / file_name(flat_name(image), ".png")

    def holds(self, path: Path) -> bool:
        """Whether there is such a file in this folder. A link that leads out of it does not count."""
        return os.path.isfile(path) and path.resolve().is_relative_to(self.path.resolve())

    def drawing(self, name: str) -> Path:
        """A picture of the whole run: `picture` (its images), `curves` or `layers`."""
        return self.path / f"{name}.png"

    # W&B

    def write_logged(self, place: str, tasks: Iterable[str]) -> None:
        """Keep the tasks that W&B has at a place, such as `online` or `offline`."""
        self._write(self._logged(place), "\n".join(tasks))

    def read_logged(self, place: str) -> list[str]:
        """The tasks that W&B has there."""
        return self._logged(place).read_text().splitlines() if self._logged(place).is_file() else []

    def _logged(self, place: str) -> Path:
        return self.path / "wandb" / f"logged-{place}.txt"

    def _write(self, path: Path, content: str | bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)

    def _write_table(self, path: Path, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
        sheet = io.StringIO()
        writer = csv.writer(sheet)
        writer.writerow(columns)
        writer.writerows(lines)
        self._write(path, sheet.getvalue())

    @staticmethod
    def _read_table(path: Path) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(contents(path).decode(), newline="")))


def versions(base: Path) -> dict[int, RunFolder]:
    """The folders of runs with the same options and other contents, by their number: `base` is 1, `base-2` is 2, ..."""
    found = (re.fullmatch(rf"{re.escape(base.name)}(?:-(\d+))?", name) for name in _names_in(base.parent))
    numbers = sorted(int(match[1] or 1) for match in found if match)
    return {number: version(base, number) for number in numbers}


def version(base: Path, number: int) -> RunFolder:
    return RunFolder(base if number == 1 else base.with_name(f"{base.name}-{number}"))


def latest(base: Path) -> RunFolder | None:
    """Of these folders the one with rows in which a run was started last."""
    found = [folder for folder in versions(base).values() if folder.has_rows() and folder.config_file.is_file()]
    return max(found, key=lambda folder: folder.config_file.stat().st_mtime_ns, default=None)


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def find_runs(out: Path) -> list[RunFolder]:
    """Every run in `out` or in a folder below it, without what W&B keeps in the folder of a run."""
    files = [*out.rglob(ROWS), *out.rglob(CONFIG)]
    folders = {path.parent for path in files} | {path.parent.parent for path in out.rglob(f"{PARTS}/*.jsonl")}
    return [RunFolder(folder) for folder in sorted(folders) if not _of_wandb(folder.relative_to(out))]


def _of_wandb(folder: Path) -> bool:
    """Whether a folder is, as `wandb/run-20261130_0800-abc/files`, one of W&B's own."""
    return any(above == "wandb" and "run-" in name for above, name in pairwise(folder.parts))


def _lines(rows: Iterable[FlatRow]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
