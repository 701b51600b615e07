"""`python -m benchmark track`: what a track is, which methods take part, and what is missing here."""

from pathlib import Path
from typing import Any

from benchmark.config import Config
from benchmark.names import by_comment, known
from benchmark.run_options import with_options
from benchmark.tracks import label_track
from benchmark.tracks.entry import (
    ALL,
    entry,
    first_observation,
    from_one_start,
    kinds,
    of_each,
    say_left_out,
    setting_of,
)
from benchmark.tracks.missing import missing
from benchmark.tracks.track import DEFAULT, read, text
from benchmark.tracks.tuned import is_tuned
from leaderboard import labels_board, record
from leaderboard.table import NOTHING, Table


@with_options(also=("data_dir", "weights_dir"))
def show(*, track: str = DEFAULT, **options: Any) -> None:
    """Show a track: its setting and budget, what is missing here, the methods that take part and why others do not.

    Args:
        track: a name from `make list`, or a YAML file.
        options: of a run, see `Options`.
    """
    if track in known("label track"):
        show_labels(track)
        return
    found = read(track)
    tune, needed = found.tune, missing(found, kinds(ALL), options)
    lines = {
        "setting": ", ".join(f"{name} {text(value)}" for name, value in found.options.items()),
        "budget": f"{found.tasks} tasks of {found.evaluations} victim gradients, over all restarts and stages",
        "tuning": f"{tune.trials} trials of a method, each on {tune.tasks} tasks of the split tune",
        "tier": found.tier,
        "missing": "; ".join(needed) or "nothing",
    }
    say(found.name, found.version, found.path, lines)
    observation = None if needed else first_observation(setting_of(found, options))

    def takes_part(method: str) -> Config:
        if observation is None:
            return entry(found, method, {}, **options)
        return from_one_start(found, method, options, observation)

    configs, left_out = of_each(ALL, takes_part)
    there = {
        each.method: each.stale(found.version) or "yes" for each in record.read(found.path.stem) if found.recordable
    }
    columns = {
        "method": list(configs),
        "prior": [config.prior if kinds(method) else NOTHING for method, config in configs.items()],
        "tuned": ["yes" if is_tuned(found, method) else NOTHING for method in configs],
        "record": [there.get(method, NOTHING) for method in configs],
    }
    unknown = "Whether a method works on the updates of this track is known only where nothing is missing."
    print(Table("", columns, unknown if needed else "").text())
    say_left_out(left_out)


def show_labels(name: str) -> None:
    """A track of label methods, and what is recorded on it."""
    found = label_track.read(name)
    lines = {
        "setting": ", ".join(f"{name} {text(value)}" for name, value in found.options.items()),
        "victims": ", ".join(found.victims),
        "batches": f"{found.trials} of each size: {', '.join(map(str, found.sizes))}",
    }
    say(name, found.version, found.path, lines)
    kept = [*record.read_labels(name)]
    rows = [row for each in kept if not each.stale(found.version) for row in each.rows]
    print(*(labels_board.table(rows, score).text() for score in labels_board.HEADINGS if rows), sep="\n")
    say_left_out({each.method: f"its record is {why}" for each in kept if (why := each.stale(found.version))})


def say(name: str, version: int, path: Path, lines: dict[str, str]) -> None:
    _, about = next(by_comment(path, ""))
    print(f"{name}, version {version}: {about.summary}")
    print(*(f"{name:9}{value}" for name, value in lines.items()), "", sep="\n")
