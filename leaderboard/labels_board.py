"""The table of label methods: how many of a batch's labels they read from its update.

A row is of one batch and method: the setting, `label_method`, `batch_size`, `task`, its `cluster` (batches that share
images are not independent) and the scores.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from leaderboard.statistics import Range, clustered_interval
from leaderboard.table import Table, interval

HEADINGS = {
    "counts": "Labels recovered, sum_i min(n_i, found n_i) / B: the label reconstruction accuracy of IGIMS, table 2",
    "existence": "Classes recovered: share of the classes in the batch that were found at least once",
}

KEYS = ("label_method", "victim", "batch_size", "task", "cluster", *HEADINGS)
"""What the table needs of a row."""

LabelRow = Mapping[str, Any]

Trial = tuple[str, float]
"""The cluster of a trial, and its value."""


def table(rows: Iterable[LabelRow], score: str = "counts", methods: Sequence[str] = ()) -> Table:
    """A line for each method, and a column for each victim and size of batch, with 95 % intervals over batches.

    Args:
        score: `counts` or `existence`.
        methods: also those without a row.
    """
    rows = list(rows)
    settings = dict.fromkeys((row["victim"], row["batch_size"]) for row in rows)
    lines = list(dict.fromkeys([*methods, *(row["label_method"] for row in rows)]))
    several = len({victim for victim, _ in settings}) > 1
    columns = {"method": lines}
    for setting in settings:
        victim, size = setting
        of = [row for row in rows if (row["victim"], row["batch_size"]) == setting]
        columns[f"{victim}, B = {size}" if several else f"B = {size}"] = [
            cell([(row["cluster"], row[score]) for row in of if row["label_method"] == method], (0, 1))
            for method in lines
        ]
    return Table(f"{HEADINGS[score]}.", columns)


def cell(trials: Iterable[Trial], bounds: Range) -> str:
    """Mean and interval of the values of trials, which are within `bounds`; a dash where there are none."""
    trials = list(trials)
    values, clusters = [value for _, value in trials], [cluster for cluster, _ in trials]
    return interval(clustered_interval(values, clusters, bounds) if trials else None)
