"""Rows -> everything on the page, as one plain dictionary: a pure function of result files."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from leaderboard.board import (
    ATTACKER,
    BESIDE,
    COUNTS,
    IDENTITY,
    SETTING,
    Entry,
    EntryWithRows,
    comparable,
    entries_with_rows,
    metrics,
    places,
)
from leaderboard.command import command, config_of
from leaderboard.curves import over_tasks
from leaderboard.differences import difference
from leaderboard.harm import NOTES
from leaderboard.matrix import Matrix, matrices, names
from leaderboard.record import picture_beside
from leaderboard.reported import Reported
from leaderboard.rows import PROTOCOL, FlatRow
from leaderboard.run_folder import RunFolder
from leaderboard.sentences import BEST
from leaderboard.settings import knowledge, label, setting_of, stands_in, varying_in
from leaderboard.statistics import Score, corrected, could_be_best, verdicts
from leaderboard.sweeps import Sweep, sweeps

SHOWN_OF_A_ROW = ("seed", "task", "image", "status", "degenerate", "cost")  # beside its scores


def results(
    rows: Sequence[FlatRow],
    folders: Sequence[Path],
    reported: Iterable[Reported] = (),
    *,
    against: str | None = None,
    metric: str = "psnr",
) -> dict[str, Any]:
    """Entries with their rows, curves, pictures, differences and commands; settings, matrices, sweeps.

    Args:
        rows: of any number of runs.
        folders: the folder of the run that wrote each row, as many as rows.
        reported: published numbers, which stand beside the entries that they are of.
        against: the attack that the other attacks are compared with, by default the best of every setting.
        metric: of the matrices.

    Returns:
        values that JSON can hold, in the order of the board; numbers that are not finite are None. The result depends
        neither on the order of the rows nor on the time.
    """
    where = [row | {"folder": folder} for row, folder in zip(rows, folders, strict=True)]
    where.sort(key=lambda row: str(row["folder"]))
    board = entries_with_rows(where)
    alone = [entry for entry, _ in board]
    settings = list(dict.fromkeys(setting_of(entry) for entry in alone if entry.control != "mean_image")) or [
        setting_of(entry) for entry in alone
    ]
    varying = varying_in(map(dict, settings), (*SETTING, "protocol"))
    variants = _variants(alone)
    published = list(reported)
    warnings: list[str] = []
    shown = []
    candidates = [_candidates(entry, board, against) for entry in alone]
    bases = [
        found[0] if found and found[0][0] is not entry else None for entry, found in zip(alone, candidates, strict=True)
    ]
    compared = _differences(board, bases, [len(found) > 1 for found in candidates])
    for (entry, samples), place, base, differences in zip(board, places(alone), bases, compared, strict=True):
        curve, torn = over_tasks(_tasks(samples.values()))
        warnings += torn
        first = next(iter(samples.values()))
        shown.append(
            {
                "id": _id(entry),
                "attack": entry.attack,
                "variant": variants.get(id(entry), ""),
                "control": entry.control,
                "stale": entry.stale,
                "age": entry.age,
                "settings": [i for i, setting in enumerate(settings) if stands_in(entry, setting)],
                "fields": {key: _field(entry, key) for key in (*IDENTITY, "lpips_backbone")},
                "knowledge": knowledge(entry),
                "commands": _commands(samples.values()),
                **{key: getattr(entry, key) for key in COUNTS},
                "place": place and place[0],
                "tied": bool(place and place[1]),
                "scores": _scores({**entry.scores, **{key: getattr(entry, key) for key in BESIDE}}),
                "too_few": entry.too_few,
                "reference": _id(base[0]) if base else None,
                **differences,
                "reported": [asdict(number) for number in published if number.matches(first)],
                "curve": curve,
                "rows": [_row(row) for row in samples.values()],
                "strip": _strip(samples.values()),
            }
        )
    return _plain(
        {
            "protocol": PROTOCOL,
            "metrics": metrics(alone),
            "notes": NOTES,
            "warnings": warnings,
            "settings": [label(dict(setting), varying) for setting in settings],
            "entries": shown,
            "matrices": [_matrix(found) for found in matrices(where, metric)],
            "sweeps": [_sweep(found) for found in sweeps(alone)],
            "reported": [asdict(number) for number in published],
        }
    )


def _candidates(entry: Entry, board: Sequence[EntryWithRows], against: str | None) -> list[EntryWithRows]:
    """The attacks whose best, the first, an entry is compared with: those named `against`, or all of its setting."""
    return [
        other
        for other in board
        if other[0].control == "none"
        and against in (None, other[0].attack)
        and (comparable(other[0], entry) or (entry.control == "mean_image" and stands_in(entry, setting_of(other[0]))))
    ]


def _differences(
    board: Sequence[EntryWithRows], bases: Sequence[EntryWithRows | None], chosen: Sequence[bool]
) -> list[dict[str, Any]]:
    """By entry: the `differences` from its reference by metric, and how the verdicts were `corrected`.

    Attacks that are compared with one reference are one family of comparisons; for verdicts on controls the family has
    both.

    Args:
        bases: the reference of every entry.
        chosen: whether it is the best of several.
    """
    higher = metrics(entry for entry, _ in board)
    families = defaultdict(list)
    scores: dict[int, dict[str, Score | None]] = {}
    for i, base in enumerate(bases):
        if base:
            families[id(base[0])].append(i)
            scores[i] = {name: difference(board[i], base, name) for name in higher}
    found: dict[int, dict[str, Any]] = {}
    for family in families.values():
        best = any(chosen[i] for i in family)
        attacks = [i for i in family if board[i][0].control == "none"]
        found |= _judgments({i: scores[i] for i in family}, higher, chosen=best)
        found |= _judgments({i: scores[i] for i in attacks}, higher, chosen=best, ranked=best)
    return [found.get(i, {"differences": {}, "corrected": ""}) for i in range(len(board))]


def _judgments(
    family: Mapping[int, Mapping[str, Score | None]],
    higher: Mapping[str, bool],
    *,
    chosen: bool,
    ranked: bool = False,
) -> dict[int, dict[str, Any]]:
    """As `_differences`, of one family of comparisons; where it is `ranked`, PSNR asks which could be the best."""
    by_metric = {name: [scores[name] for scores in family.values()] for name in higher}
    note = corrected(by_metric.values(), chosen=chosen)
    if ranked and note:
        note = f"By PSNR: {BEST} By other metrics: {note}"
    found: dict[int, dict[str, Any]] = {i: {"differences": {}, "corrected": note} for i in family}
    for name, scores in by_metric.items():
        by_place = ranked and name == "psnr"
        words = could_be_best(scores) if by_place else verdicts(scores, higher[name], chosen=chosen)
        for judged, score, word in zip(found.values(), scores, words, strict=True):
            if score:
                judged["differences"][name] = _score(score) | {"verdict": word}
    return found


def _commands(rows: Iterable[FlatRow]) -> list[str]:
    """One command for each run, also for one that gave only some scores, in the order of their folders."""
    runs = defaultdict(list)
    for row in rows:
        for each in (row, *row.get("also", ())):
            runs[each["folder"]].append(each)
    return list(
        dict.fromkeys(command(RunFolder(folder).read_config() or config_of(runs[folder])) for folder in sorted(runs))
    )


def _tasks(rows: Iterable[FlatRow]) -> list[tuple[RunFolder, str]]:
    tasks = dict.fromkeys((row["folder"], row["task"]) for row in rows)
    return [(RunFolder(folder), task) for folder, task in tasks]


def _row(row: FlatRow) -> dict[str, Any]:
    """The scores of one image, and the paths of its pictures: None where a file is missing."""
    run = RunFolder(row["folder"])
    files = {"reconstruction": run.reconstruction(row["task"], row["image"]), "truth": run.truth(row["image"])}
    pictures = {name: str(path) if run.holds(path) else None for name, path in files.items()}
    return {key: row[key] for key in (*SHOWN_OF_A_ROW, *row["higher_is_better"])} | pictures


def _strip(rows: Iterable[FlatRow]) -> str | None:
    """The path of a picture that the record has of an entry, whose rows have none of their own."""
    return next((str(strip) for folder, _ in _tasks(rows) if (strip := picture_beside(folder.path))), None)


def _matrix(matrix: Matrix) -> dict[str, Any]:
    lines = [
        {
            "attack": name,
            "control": name in matrix.controls,
            "cells": [_cell(line.get(d)) for d in matrix.defenses],
        }
        for name, line in matrix.lines.items()
    ]
    words = matrix.gain_verdicts()
    gains = [
        {
            "attack": name,
            "cells": [_score(line[d]) | {"verdict": words[d][name]} if d in line else None for d in matrix.defenses],
        }
        for name, line in matrix.gains.items()
    ]
    return {
        "setting": matrix.setting,
        "metric": matrix.metric,
        "defenses": matrix.defenses,
        "lines": lines,
        "gains": gains,
        "what_gains_are": matrix.what_gains_are(),
    }


def _variants(board: Iterable[Entry]) -> dict[int, str]:
    """What tells entries with the same attack and setting apart, by the `id()` of the entry."""
    settings = defaultdict(list)
    for entry in board:
        if entry.control != "mean_image":
            settings[setting_of(entry)].append(entry)
    found = {}
    for alike in settings.values():
        attackers = [tuple(entry[key] for key in ATTACKER) for entry in alike]
        for entry, name in zip(alike, names(attackers), strict=True):
            found[id(entry)] = name.removeprefix(entry.attack).removeprefix(", ").replace("options ", "")
    return found


def _sweep(sweep: Sweep) -> dict[str, Any]:
    lines = [
        {"attack": along[0][1].attack, "points": [{"x": x, "id": _id(e), **(_cell(e.psnr) or {})} for x, e in along]}
        for along in sweep.lines
    ]
    return {"axis": sweep.axis, "setting": sweep.setting, "lines": lines}


def _id(entry: Entry) -> str:
    identity = json.dumps({key: entry[key] for key in IDENTITY}, sort_keys=True, default=str)
    return hashlib.sha256(identity.encode()).hexdigest()[:10]


def _field(entry: Entry, key: str) -> Any:
    value = entry[key]
    return " ".join(value) if isinstance(value, tuple) else value


def _scores(scores: Mapping[str, Score | None]) -> dict[str, Any]:
    return {name: _cell(score) for name, score in scores.items()}


def _cell(score: Score | None) -> dict[str, float] | None:
    return _score(score) if score else None


def _score(score: Score) -> dict[str, float]:
    return {key: value for key, value in score._asdict().items() if key not in ("p", "batches", "error")}


def _plain(value: Any) -> Any:
    """Values for JSON: numbers with six digits, None where a number is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if isfinite(value) else None
    return value
