"""Rows -> entries: one entry per attack and setting, its metrics as means with clustered intervals."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from leaderboard.harm import Sample, extremes, knows, recognized
from leaderboard.options import abouts, row_keys
from leaderboard.rows import PROTOCOL, FlatRow
from leaderboard.statistics import UNBOUNDED, Range, Score, clustered_interval, joined, known, too_few

SETTING = row_keys("setting")
ATTACKER = row_keys("method", "knowledge")
IDENTITY = (*SETTING, *ATTACKER, "track_version", "protocol")
DIGESTS = tuple(key for key in IDENTITY if key.endswith("_digest"))  # of what can change under one name
FOLLOWING = (*DIGESTS, "mean", "std")  # mostly from the other fields: shown where nothing else tells entries apart
# What the score of a mean image depends on. It does not depend on the attack whose run wrote it.
# Its `attack_digest` is that of the training images.
OF_IMAGES = (*(key for about in abouts().values() if about.of_images for key in about.rows), "protocol")
MEAN_IMAGE = (*OF_IMAGES, "control", "attack_digest")

COUNTS = ("n", "tasks", "diverged", "degenerate", "seconds", "gradient_evaluations", "training_seconds")
BESIDE = ("best_in_batch", "worst_in_batch", "recognized", "knows", "certified", "psnr_of_others")  # no metrics


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the board.

    Attributes:
        fields: what its rows share, by the keys of IDENTITY: None where a key has no meaning, as a mean image has no
            restarts. `attack` carries the control's name; `options` are sorted `name=value`. Beside them stands
            `lpips_backbone`.
        axis: where its defense stands, by the name of the axis.
        n, tasks: images, and batches per seed. An image counts in every batch that it is in, under every seed;
            intervals take batches that share an image, and the same batch under another seed, as one.
        diverged, degenerate: images of which no start had a finite cost, and images of almost one color.
        scores: by metric, None where no image has a value.
        higher_is_better, ranges: by metric.
        best_in_batch, worst_in_batch: the PSNR of these images of every batch.
        recognized: the share of images that show the truth, see `leaderboard.harm`.
        knows: how well the attacker can tell which batches were rebuilt, from -1 to 1, over n batches.
        certified: the share of images that the attacker knows to be those behind the update; None where it has no
            check.
        psnr_of_others: the PSNR without degenerate images.
        seconds, gradient_evaluations: means over tasks.
        training_seconds: of the prior, where they are known.
    """

    fields: Mapping[str, Any]
    axis: Mapping[str, float]
    n: int
    tasks: int
    diverged: int
    degenerate: int
    scores: Mapping[str, Score | None]
    higher_is_better: Mapping[str, bool]
    ranges: Mapping[str, Range]
    best_in_batch: Score | None
    worst_in_batch: Score | None
    recognized: Score | None
    knows: Score | None
    certified: Score | None
    psnr_of_others: Score | None
    seconds: float
    gradient_evaluations: float
    training_seconds: float | None = None

    def __getitem__(self, key: str) -> Any:
        return self.fields[key]

    @property
    def attack(self) -> str:
        return self.fields["attack"]

    @property
    def control(self) -> str:
        return self.fields["control"]

    @property
    def psnr(self) -> Score | None:
        """The score that ranks entries."""
        return self.scores.get("psnr")

    @property
    def too_few(self) -> str:
        """Why an attack has too few batches for a place; empty where it has enough, and for a control."""
        return too_few(self.psnr) if self.psnr and self.control == "none" else ""

    @property
    def stale(self) -> bool:
        """Whether its numbers cannot stand beside those of the present protocol."""
        return bool(self.age)

    @property
    def age(self) -> str:
        """`older` or `newer` where its protocol is not the present one."""
        return age(self.fields["protocol"])


def age(protocol: float) -> str:
    """`older` or `newer` than the present protocol; empty for that."""
    return "" if protocol == PROTOCOL else "older" if protocol < PROTOCOL else "newer"


EntryWithRows = tuple[Entry, dict[Sample, FlatRow]]


def metrics(board: Iterable[Entry]) -> dict[str, bool]:
    """All metrics of some entries, and whether higher is better."""
    found: dict[str, bool] = {}
    for entry in board:
        for name, higher in entry.higher_is_better.items():
            found.setdefault(name, higher)
    return found


def telling(alike: Iterable[Mapping[str, Any]]) -> set[str]:
    """Those of `FOLLOWING` that tell fields of entries apart that are alike otherwise: a reader needs them."""
    groups = defaultdict(list)
    for fields in alike:
        groups[tuple((key, value) for key, value in fields.items() if key not in FOLLOWING)].append(fields)
    return {key for group in groups.values() for key in FOLLOWING if len({fields.get(key) for fields in group}) > 1}


def identity(row: FlatRow) -> dict[str, Any]:
    """The fields that the rows of one entry share; None for those that have no meaning for the row's control."""
    if row["control"] == "mean_image":
        return dict.fromkeys(IDENTITY) | {key: row[key] for key in MEAN_IMAGE} | {"attack": "mean image (control)"}
    attack = row["attack"]
    if row["control"] == "shuffled_update":
        attack += ", shuffled update (control)"
    options = tuple(sorted(f"{name}={_written(value)}" for name, value in row["options"].items()))
    return {key: row[key] for key in IDENTITY} | {"attack": attack, "options": options}


def _written(value: Any) -> str:
    """The value of an option: `z:300,w:300` for steps by stage."""
    return ",".join(f"{k}:{v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def entries(rows: Iterable[FlatRow]) -> list[Entry]:
    """The board: by setting, then the best PSNR first. Diverged images count, with the scores of a failure."""
    return [entry for entry, _ in entries_with_rows(rows)]


def entries_with_rows(rows: Iterable[FlatRow]) -> list[EntryWithRows]:
    """The board, and for every entry the rows that count in it, in the order of their samples."""
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(identity(row).values())].append(row)
    return sorted(map(_entry, groups.values()), key=lambda pair: _rank(pair[0]))


def comparable(a: Entry, b: Entry) -> bool:
    """Whether two entries have the same setting and protocol."""
    return _setting(a) == _setting(b)


def _setting(entry: Entry) -> tuple[Any, ...]:
    return tuple(entry[key] for key in (*SETTING, "protocol"))


def places(board: Sequence[Entry]) -> list[tuple[int, bool] | None]:
    """The place of every entry, and whether it is shared; None for a control, and where there can be none.

    That is below `ENOUGH` clusters, and where every image diverged: nothing was found.

    The place is 1 + the number of attacks of the same setting whose interval of the PSNR lies wholly above.
    """
    rivals = defaultdict(list)
    for entry in board:
        if score := _ranked(entry):
            rivals[_setting(entry)].append(score)

    def number(entry: Entry) -> int | None:
        score = _ranked(entry)
        return 1 + sum(rival.low > score.high for rival in rivals[_setting(entry)]) if score else None

    numbered = [(_setting(entry), number(entry)) for entry in board]
    taken = Counter(numbered)
    return [None if place is None else (place, taken[setting, place] > 1) for setting, place in numbered]


def _ranked(entry: Entry) -> Score | None:
    """The score that gives an attack its place; None for a control, and where it has no place."""
    ranked = entry.control == "none" and entry.diverged < entry.n
    return entry.psnr if ranked and not entry.too_few else None


def _entry(group: Sequence[FlatRow]) -> EntryWithRows:
    samples = dict(sorted(distinct(group).items()))
    rows = samples.values()
    tasks = {(seed, task): row for (seed, task, _), row in samples.items()}
    directions = {name: higher for row in rows for name, higher in row["higher_is_better"].items()}
    ranges = {name: _range(*ends) for row in rows for name, ends in row["ranges"].items()}
    clusters = clusters_of(samples)

    def score(metric: str, values: Mapping[Sample, float | None]) -> Score | None:
        return score_of(values, clusters, ranges.get(metric, UNBOUNDED))

    scores = {name: score(name, {sample: row.get(name) for sample, row in samples.items()}) for name in directions}
    # `lpips_backbone` is the reason in a row without LPIPS, so only rows with LPIPS are asked.
    backbone = _agreed([row for row in rows if known(row.get("lpips"))] or rows, "lpips_backbone")
    if backbone is None and "lpips" in scores:  # distances of different backbones cannot be averaged
        scores["lpips"] = None
    # A mean image takes the setting of the attacks that it was run with, so that it is sorted among them.
    setting = {key: _agreed(group, key) for key in SETTING}
    others = {sample: row for sample, row in samples.items() if not row["degenerate"]}
    best, worst = extremes(samples)
    shown = {sample: recognized(row) for sample, row in samples.items() if backbone is not None}
    entry = Entry(
        fields=identity(group[0]) | setting | {"lpips_backbone": backbone},
        axis=next((row["axis"] for row in rows if row["axis"]), {}),  # older rows may have none
        n=len(samples),
        tasks=len(tasks),
        diverged=sum(row["status"] == "diverged" for row in rows),
        degenerate=sum(row["degenerate"] for row in rows),
        scores=scores,
        higher_is_better=directions,
        ranges=ranges,
        best_in_batch=score("psnr", best),
        worst_in_batch=score("psnr", worst),
        recognized=score_of(shown, clusters, (0, 1)),
        knows=knows(samples, clusters),
        certified=score_of({sample: row["certified"] for sample, row in samples.items()}, clusters, (0, 1)),
        psnr_of_others=score("psnr", {sample: row.get("psnr") for sample, row in others.items()}),
        seconds=sum(row["seconds"] for row in tasks.values()) / len(tasks),
        gradient_evaluations=sum(row["gradient_evaluations"] for row in tasks.values()) / len(tasks),
        training_seconds=group[0]["training_seconds"],
    )
    return entry, samples


def distinct(rows: Iterable[FlatRow]) -> dict[Sample, FlatRow]:
    """One row per sample, also where several runs wrote it, each with other scores as of another backbone of LPIPS."""
    written = defaultdict(list)
    for row in rows:
        written[row["seed"], row["task"], row["image"]].append(row)
    return {sample: _merged(alike) if len(alike) > 1 else alike[0] for sample, alike in written.items()}


def _merged(rows: Iterable[FlatRow]) -> FlatRow:
    """The row with the most scores, and from the others those that it lacks; the order of rows does not matter.

    What others gave scores stand under the key `also`.
    """

    def preference(row: FlatRow) -> tuple[Any, ...]:
        scores = sum(known(row.get(metric)) for metric in row["higher_is_better"])
        content = {key: value for key, value in row.items() if key != "folder"}
        # `seconds` are those of a task: where runs have equally many scores, all its images are taken from one.
        return scores, row["lpips_backbone"], row["seconds"], json.dumps(content, sort_keys=True)

    best, *others = sorted(rows, key=preference, reverse=True)
    merged = best | {key: dict(best[key]) for key in ("higher_is_better", "ranges")} | {"also": []}
    for row in others:
        added = [name for name in row["higher_is_better"] if known(row.get(name)) and not known(merged.get(name))]
        merged |= {name: row[name] for name in added}
        merged |= {"lpips_backbone": row["lpips_backbone"]} if "lpips" in added else {}
        for key in ("higher_is_better", "ranges"):
            merged[key] |= {name: row[key][name] for name in added if name in row[key]}
        merged["also"] += [row] if added else []
    return merged


def score_of(values: Mapping[Sample, float | None], names: Mapping[str, str], range: Range) -> Score | None:
    """Of values by sample.

    Args:
        names: of the clusters of all tasks.
    """
    found = {sample: value for sample, value in sorted(values.items()) if known(value)}
    if not found:
        return None
    tasks = [task for _, task, _ in found]
    score = clustered_interval(list(found.values()), [names[task] for task in tasks], range)
    return score._replace(batches=len(set(tasks)))


def _range(low: float | None, high: float | None) -> Range:
    """The range of a score, from that of a row."""
    return -inf if low is None else low, inf if high is None else high


def clusters_of(samples: Iterable[Sample]) -> dict[str, str]:
    """The name of the cluster of every task: its images are the same under every seed, and may be in other tasks."""
    return joined({(task, image) for _, task, image in samples})


def _agreed(rows: Iterable[FlatRow], key: str) -> Any:
    """The value that all rows share, else None."""
    values = {row[key] for row in rows}
    return values.pop() if len(values) == 1 else None


def _rank(entry: Entry) -> tuple[Any, ...]:
    setting = tuple((entry[key] is not None, _natural(entry[key])) for key in SETTING)  # None and a name have no order
    return (*setting, -entry.psnr.mean if entry.psnr else inf, entry.attack)


def _natural(value: Any) -> Any:
    """What a value is sorted by: the numbers in a text count as numbers, so that `100steps` precedes `1000steps`."""
    if not isinstance(value, str):
        return value
    parts = re.split(r"(\d+(?:\.\d+)?)", value)  # text, number, text, ...
    return [(1, 0.0, part) if place % 2 == 0 else (0, float(part), "") for place, part in enumerate(parts)]
