"""Tracks of label methods: fixed batches and victims, on which methods read labels from the update. Nothing is tuned.

A track is a YAML file in `labels/`, which begins with a comment on what it shows:

- version: goes up where results can change; a record of an older version is stale.
- trials: batches of each size.
- sizes, victims: each size of batch on each victim.
- options: of the setting, the same for all methods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmark.code_version import code_version
from benchmark.config import Config
from benchmark.labels import recovered
from benchmark.names import known
from benchmark.run import reproducible
from benchmark.tracks.entry import ALL, say_left_out
from benchmark.tracks.missing import images
from leaderboard import record as kept
from leaderboard.labels_board import LabelRow
from leaderboard.rows import PROTOCOL
from victims.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LabelTrack:
    """See the module."""

    version: int
    trials: int
    sizes: Sequence[int]
    victims: Sequence[str]
    options: Mapping[str, Any]


def read(name: str) -> LabelTrack:
    """A track of the project."""
    return LabelTrack(**yaml.safe_load((Path(__file__).parent / "labels" / f"{name}.yaml").read_text()))


def record_labels(name: str, named: str, **options: Any) -> None:
    """Read the labels of a track's batches, and keep a row for each with the project.

    Args:
        named: label methods with commas between them, or `all`.
        options: of a run.

    Raises:
        InputError: images are missing, or a method that was named is unknown or reads the labels of no victim.
    """
    reproducible()
    track = read(name)
    methods = [*known("label method")] if named == ALL else named.split(",")
    rows: list[LabelRow] = []
    left_out: dict[str, str] = {}
    for victim in track.victims:
        largest = {"tasks": track.trials, "batch": max(track.sizes)}
        config = Config(**{**track.options, **options, **largest}, victim=victim, labels="none")
        if why := images(config):
            raise InputError(f"the track {name} needs what is not here: {why}.")
        found, refused = recovered(config, config.make_data(), methods, track.sizes, track.trials)
        rows += found
        left_out |= refused
    about = {"track": name, "track_version": track.version, "code": code_version(), "protocol": PROTOCOL}
    of = {method: [{**row, **about} for row in rows if row["label_method"] == method] for method in methods}
    none = {method: left_out[method] for method in methods if not of[method]}
    if none and named != ALL:
        raise InputError(next(iter(none.values())))
    for method in [method for method in methods if of[method]]:
        print(f"record   {kept.write_rows(name, method, of[method])}")
    say_left_out(none)
