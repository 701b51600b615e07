"""The record of label methods: the rows of each on a track of theirs."""

from typing import Any

from attacks.labels import find
from benchmark.code_version import code_version
from benchmark.device import reproducible
from benchmark.labels import recovered
from benchmark.setting import Setting
from benchmark.tracks import label_track
from benchmark.tracks.entry import ALL, methods, say_left_out
from benchmark.tracks.missing import images
from leaderboard import record as kept
from leaderboard.labels_board import LabelRow
from leaderboard.rows import PROTOCOL
from victims.errors import InputError


def record_labels(name: str, named: str, **options: Any) -> None:
    """Read the labels of a track's batches, and keep a row for each with the project.

    Args:
        named: label methods with commas between them, or `all`.
        options: of a run.

    Raises:
        InputError: a method that was named is unknown or reads the labels of no victim, or images are missing.
    """
    track = label_track.read(name)
    chosen = methods(named, "label method")
    for method in chosen:
        find(method)
    reproducible()
    rows: list[LabelRow] = []
    left_out: dict[str, str] = {}
    for victim in track.victims:
        largest = {"tasks": track.trials, "batch": max(track.sizes)}
        setting = Setting(**{**track.options, **options, **largest}, victim=victim, labels="none")
        if why := images(setting):
            raise InputError(f"the track {name} needs what is not here: {why}.")
        read, refused = recovered(setting, setting.make_data(), chosen, track.sizes, track.trials)
        rows += read
        left_out |= refused
    about = {"track": name, "track_version": track.version, "code": code_version(), "protocol": PROTOCOL}
    of = {method: [{**row, **about} for row in rows if row["label_method"] == method] for method in chosen}
    none = {method: left_out[method] for method in chosen if not of[method]}
    if none and named != ALL:
        raise InputError(next(iter(none.values())))
    for method, found in of.items():
        if found:
            print(f"record   {kept.write_labels(name, method, found)}")
    say_left_out(none)
