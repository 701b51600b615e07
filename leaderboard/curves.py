"""The cost curves of an entry's runs: read, joined over tasks, thinned."""

import csv
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

MOST = 200  # points of a curve that a page shows


def joined(paths: Iterable[Path]) -> tuple[dict[str, Any] | None, list[str]]:
    """The attacker's cost by step over tasks, one CSV each (step, stage, cost), and warning_lines.

    Returns:
        steps, the quartiles low, median and high of the cost at them (None where no task had a finite one), stages as
        [first step, name], `length` in steps and `tasks`; None where there is no curve. Curves that are shorter or
        longer than most are left out and reported in a warning.
    """
    curves, warning_lines = [], []
    for path in paths:
        try:
            curves.append((path, *_read(path)))
        except FileNotFoundError:
            continue  # a mean image has none
        except (OSError, ValueError, KeyError, TypeError):
            warning_lines.append(f"{path} is not a whole curve (torn write?); left out.")
    lengths = Counter(len(costs) for _, _, costs in curves)
    length = max(lengths, key=lambda length: (lengths[length], length), default=0)
    warning_lines += [
        f"{path} is not as long as others of its entry; left out." for path, _, c in curves if len(c) != length
    ]
    curves = [curve for curve in curves if len(curve[2]) == length]
    if not length:
        return None, warning_lines
    stages = curves[0][1]
    firsts = [[0, stages[0]], *([i, b] for i, (a, b) in enumerate(pairwise(stages), start=1) if a != b)]
    steps = np.unique(np.linspace(0, length - 1, min(length, MOST)).round().astype(int))
    low, median, high = _quartiles(np.array([costs for _, _, costs in curves])[:, steps])
    shown = {"steps": steps.tolist(), "low": low, "median": median, "high": high}
    return shown | {"stages": firsts, "length": length, "tasks": len(curves)}, warning_lines


def _read(path: Path) -> tuple[list[str], list[float]]:
    """Stages and costs by step.

    Raises:
        ValueError, KeyError, TypeError: it is not such a file.
    """
    with path.open(newline="") as file:
        lines = [(line["stage"], float(line["cost"])) for line in csv.DictReader(file)]
    if not lines:
        raise ValueError("no step")
    stages, costs = zip(*lines, strict=True)
    return list(stages), list(costs)


def _quartiles(costs: np.ndarray) -> list[list[float | None]]:
    """Of costs (tasks, points), by point; what is not finite is left out."""
    found: list[list[float | None]] = [[], [], []]
    for point in costs.T:
        finite = point[np.isfinite(point)]
        values = np.quantile(finite, [0.25, 0.5, 0.75]) if len(finite) else [np.nan] * 3
        for line, value in zip(found, values, strict=True):
            line.append(float(value) if isfinite(value) else None)
    return found
