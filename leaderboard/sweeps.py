"""Entries -> PSNR along an axis: what more images in a batch, or less of the update, take from every attack."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from leaderboard.board import IDENTITY, SETTING, Entry
from leaderboard.settings import label


class Sweep(NamedTuple):
    """The attacks of one setting along one axis; a line has (value, entry) in the order of its values."""

    axis: str
    setting: str
    lines: list[list[tuple[float, Entry]]]


def sparsity(entry: Entry) -> float | None:
    """Share of every gradient tensor that is not sent; None under another defense."""
    match = re.fullmatch(r"sparsification:([0-9.]+)", entry.defense or "")
    return 0.0 if entry.defense == "none" else float(match[1]) if match else None


# name of an axis -> the fields it stands for, and its value for an entry
AXES: Mapping[str, tuple[tuple[str, ...], Callable[[Entry], float | None]]] = {
    "images in a batch": (("batch_size",), lambda entry: entry.batch_size),
    "share of the update that is not sent": (("defense", "adapt"), sparsity),
}


def sweeps(board: Iterable[Entry]) -> list[Sweep]:
    """One for every axis and setting in which an attack was run at two or more values, all else equal.

    Without a defense there is nothing to adapt to: that entry begins the lines of adaptive and non-adaptive attackers.
    """
    board = [entry for entry in board if entry.control != "mean_image" and entry.scores["psnr"]]
    settings = [{key: getattr(entry, key) for key in (*SETTING, "protocol")} for entry in board]
    varying = [key for key in SETTING if len({setting[key] for setting in settings}) > 1]
    found = []
    for axis, (fields, value) in AXES.items():
        alike = defaultdict(list)
        for entry in board:
            if value(entry) is not None:
                fixed = tuple((key, getattr(entry, key)) for key in IDENTITY if key not in fields)
                kinds = (True, False) if "adapt" in fields and entry.defense == "none" else (entry.adapt,)
                for adapts in kinds if "adapt" in fields else (None,):
                    alike[fixed, adapts].append((value(entry), entry))
        charts = defaultdict(list)
        for (fixed, adapts), along in alike.items():
            if len({x for x, _ in along}) > 1:
                kind = {True: ", adaptive attackers", False: ", non-adaptive attackers", None: ""}[adapts]
                setting = {key: held for key, held in fixed if key in (*SETTING, "protocol")}
                charts[label(setting, varying) + kind].append(sorted(along, key=lambda point: point[0]))
        found += [Sweep(axis, setting, lines) for setting, lines in charts.items()]
    return found
