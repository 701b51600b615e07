"""The cost curves of the runs of one entry: read, joined over tasks, thinned."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np

from leaderboard.run_folder import RunFolder

MOST = 200  # points of a curve on the page


def over_tasks(tasks: Iterable[tuple[RunFolder, str]]) -> tuple[dict[str, Any] | None, list[str]]:
    """The attacker's cost by step over tasks of any number of runs, and warnings.

    Returns:
        `steps`; the quartiles `low`, `median` and `high` of the cost at these steps, None where no task has a finite
        cost; `stages` as [first step, name]; `length` in steps; the number of `tasks`. None where there is no curve.
        Curves that are shorter or longer than most are left out, with a warning.
    """
    curves, warnings = [], []
    for run, task in tasks:
        path = run.curve_file(task)
        try:
            curve = run.read_curve(task) if run.holds(path) else None
        except (OSError, ValueError):
            warnings.append(f"{path} is not a whole curve (torn write?); left out.")
            continue
        if curve is not None:  # a mean image has none
            curves.append((path, *curve))
    lengths = Counter(len(costs) for _, _, costs in curves)
    length = max(lengths, key=lambda length: (lengths[length], length), default=0)
    warnings += [
        f"{path} has another length than most curves of its entry; left out."
        for path, _, c in curves
        if len(c) != length
    ]
    curves = [curve for curve in curves if len(curve[2]) == length]
    if not length:
        return None, warnings
    stages = curves[0][1]
    firsts = [[0, stages[0]], *([i, b] for i, (a, b) in enumerate(pairwise(stages), start=1) if a != b)]
    steps = np.unique(np.linspace(0, length - 1, min(length, MOST)).round().astype(int))
    low, median, high = _quartiles(np.array([costs for _, _, costs in curves])[:, steps])
    shown = {"steps": steps.tolist(), "low": low, "median": median, "high": high}
    return shown | {"stages": firsts, "length": length, "tasks": len(curves)}, warnings


def _quartiles(costs: np.ndarray) -> list[list[float | None]]:
    """Quartiles of costs (tasks, points) by point; costs that are not finite are left out."""
    found: list[list[float | None]] = [[], [], []]
    for point in costs.T:
        finite = point[np.isfinite(point)]
        values = np.quantile(finite, [0.25, 0.5, 0.75]) if len(finite) else [np.nan] * 3
        for line, value in zip(found, values, strict=True):
            line.append(float(value) if isfinite(value) else None)
    return found
