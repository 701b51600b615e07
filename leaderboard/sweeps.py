"""Entries -> PSNR along an axis: how larger batches, stronger defenses or more training lower every attack's score."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from leaderboard.board import IDENTITY, SETTING, Entry
from leaderboard.settings import label, varying_in

IMAGES = "images in a batch"
TRAINING = "steps of the victim's training"
VARIES: Mapping[str, tuple[str, ...]] = {IMAGES: ("batch_size",), TRAINING: ("epochs_trained", "victim_digest")}
"""The keys that differ along an axis; along any other these are the defense's."""


class Sweep(NamedTuple):
    """The attacks of one setting along one axis; a line has (value, entry) in the order of its values."""

    axis: str
    setting: str
    lines: list[list[tuple[float, Entry]]]


def sweeps(board: Iterable[Entry]) -> list[Sweep]:
    """One for every axis and setting in which an attack was run at two or more values, everything else being equal.

    The axes are the images in a batch, the steps of training, and those that the defenses of the board name.
    """
    board = [entry for entry in board if entry.control != "mean_image" and entry.psnr]
    settings = [{key: entry[key] for key in (*SETTING, "protocol")} for entry in board]
    varying = varying_in(settings, SETTING)
    found = []
    for axis in dict.fromkeys([IMAGES, *(name for entry in board for name in entry.axis)]):
        charts = defaultdict(list)
        for (fixed, adapts), along in _alike(board, axis).items():
            if len({x for x, _ in along}) > 1:
                kind = {True: ", adaptive attackers", False: ", non-adaptive attackers", None: ""}[adapts]
                setting = {key: value for key, value in fixed if key in (*SETTING, "protocol")}
                charts[label(setting, varying) + kind].append(sorted(along, key=lambda point: point[0]))
        found += [Sweep(axis, setting, lines) for setting, lines in charts.items()]
    return found


Fixed = tuple[tuple[str, object], ...]


def _alike(board: Iterable[Entry], axis: str) -> dict[tuple[Fixed, bool | None], list[tuple[float, Entry]]]:
    """Values on an axis with their entries, by the fields that are fixed along it and by whether the attacker adapts.

    Without a defense there is nothing to adapt to: that entry begins the lines of adaptive and non-adaptive attackers.
    """
    varies = VARIES.get(axis, ("defense", "defense_digest", "adapt"))
    alike = defaultdict(list)
    for entry in board:
        undefended = entry["defense"] == "none"
        x = place(entry, axis)
        if x is not None:
            fixed = tuple((key, entry[key]) for key in IDENTITY if key not in varies)
            kinds = (None,) if axis in VARIES else (True, False) if undefended else (entry["adapt"],)
            for adapts in kinds:
                alike[fixed, adapts].append((x, entry))
    return alike


def place(entry: Entry, axis: str) -> float | None:
    """Where an entry stands on an axis; None where it has no place."""
    if axis == IMAGES:
        return entry["batch_size"]
    nothing = entry["epochs_trained"] == "0" if axis == TRAINING else entry["defense"] == "none"
    return 0.0 if nothing else entry.axis.get(axis)
