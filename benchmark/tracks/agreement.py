"""Whether scores that were found again agree with those of a record, as far as rounding explains their difference."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from leaderboard.rows import FlatRow

SPREAD = 0.9
"""dB: root mean square of what other rounding did to the PSNR of a task, of these methods. Others it moves further, as
`ci_net` by 2.4 dB in a task of `photos-default`: where scores differ, the spread of the method itself is measured.

Measured on `cifar10-b1` with default options within the budget, 4 to 12 tasks each. The same command has the same bits,
and so have two threads in place of one.

             dlg    gias   igims  ggl    gi_z   ig
    GROUP    0.91   0.62   0.04   0.00   0.11   0.02    several tasks attacked together
    COMPILE         0.18                        0.12    compiled steps in place of eager ones
    CPU      0.49   0.88   0.00   0.00   0.02   0.24    without the vector instructions that it has

`gias` with its options and budget of `photos-default` moved its eight tasks by 3.6 dB on another processor, and one of
them by 9.3.

An image of a batch moves no further: in the records of `cifar10-b4`, 3 or 4 batches each, CPU moved an image by 0.46
(`gias`), 0.71 (`igims`), 0.67 (`ci_net`) and 0.44 (`gifd`), and by 1.85 at most.
"""

MEAN, TASK = 2.6, 3.4  # standard deviations that a mean, and a single task, differs by in 1 of 100 and 1 of 1500 cases
COPIES, MARGIN = 4, 1.5  # runs that measure the spread of a method, and what is added as they are few
WIDE = 3.0  # dB: where the mean of honest tasks may differ by more, they do not decide
BYTES = -10 * math.log10(1 / 255**2 / 12)  # dB: nearer to an image than its own bytes are, only rounding is left

Pairs = Sequence[tuple[float, float]]
"""PSNR of each image of a task, as recorded and as found again."""

Scores = Mapping[str, Any]
"""Of an image that was attacked again, by metric, with the cost and what else was found of it, as rows have them."""

EVERYWHERE = ("cost", "label_counts", "label_existence", "status", "degenerate", "certified")  # in every row
REL, ABS = 1e-3, 1e-5
"""Of a score of the same image elsewhere, where a network or a window is computed in another order: its last digits."""


def scored_in_both(row: FlatRow, again: Scores) -> list[str]:
    """What can be compared: a metric may lack its network in one of them."""
    return [key for key in again if key in EVERYWHERE or None not in (row.get(key), again[key])]


def far(both: Iterable[tuple[FlatRow, Scores]]) -> list[str]:
    """What differs by more than last digits, of images that were rebuilt as they were for the record."""

    def near(before: Any, now: Any) -> bool:
        if before is None or now is None or isinstance(before, str):
            return before == now
        return math.isclose(before, now, rel_tol=REL, abs_tol=ABS)

    return sorted({k for row, again in both for k in scored_in_both(row, again) if not near(row[k], again[k])})


def shifts(pair: Pairs) -> list[float]:
    """Of the PSNR of each image; what the bytes of an image do not hold is left out."""
    return [min(now, BYTES) - min(before, BYTES) for before, now in pair]


def least_found(of_task: float, tasks: int) -> float:
    """dB that the mean of tasks may differ by."""
    return MEAN * of_task / tasks**0.5


def verdict(pairs: Sequence[Pairs], of_task: float = SPREAD, of_image: float = SPREAD) -> tuple[bool, str]:
    """Whether scores agree, and by which rule.

    In hundreds of steps the rounding of another machine grows to another result, better or worse. So the mean of the
    differences is judged, and the largest of a task and of an image: rows in another order can have the right mean.

    Args:
        pairs: of each task.
        of_task, of_image: standard deviations in dB by which rounding moves a task, and an image.
    """
    images = [shifts(pair) for pair in pairs]
    tasks = [fmean(task) for task in images]
    mean, task, image = fmean(tasks), max(map(abs, tasks)), max(abs(shift) for task in images for shift in task)
    limits = least_found(of_task, len(tasks)), TASK * of_task, TASK * of_image
    allowed = " and ".join(f"{limit:.2f}" for limit in limits)
    return all(found <= limit for found, limit in zip((abs(mean), task, image), limits, strict=True)), (
        f"PSNR by {mean:+.2f} dB in the mean of {len(tasks)}, at most {task:.2f} dB in a task and {image:.2f} dB in an "
        f"image, where the rounding of another machine explains {allowed} dB. Other scores were not compared."
    )
