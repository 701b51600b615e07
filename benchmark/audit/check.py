"""Whether an audit's model finds the classes of its images: a check of weights, classes and preprocessing."""

import math
import warnings
from collections.abc import Sequence

from benchmark.scoring.accuracy import classified_right, like_guessing, told_apart
from benchmark.setting import Setting
from benchmark.tasks.capture import capture_task
from victims.data.base import ImageData
from victims.errors import InputError, Notice
from victims.victim import Victim, norm

MOST = 1000  # images


def check_finite(config: Setting, data: ImageData) -> None:
    """
    Raises:
        InputError: the update of the first task, without a defense, is NaN or infinite.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # the audit will say it
        victim, (batch,) = config.make_victim(data), config.make_batches(data, 1)
        size = norm(capture_task(victim, data, batch, config.make_client()).observation.update)
    if not math.isfinite(size):
        cause = "its forward pass, its weights and its preprocessing (--mean, --std)"
        raise InputError(f"the update of the model {config.victim} is not finite, its norm is {size}; check {cause}.")


def check(victim: Victim, data: ImageData, trained: bool) -> tuple[str, str]:
    """How many images are classified right, of 1000 evenly spaced ones at most, in words; and a warning or nothing.

    Args:
        victim: in eval mode, without a defense.
        trained: whether its weights may be trained ones; only then there is a warning.
    """
    indices = data.readable(range(0, len(data), -(-len(data) // MOST)))
    right = classified_right(victim, victim.parameters, data, indices)
    classes = told_apart(victim, data, indices[:2])
    if not (trained and like_guessing(sum(right), len(right), classes)):
        return share(right), ""
    return share(right), (
        f"The model classifies {share(right)} images right, no better than guessing one of {classes} classes "
        "does. If it is trained, its weights, the order of its classes or its preprocessing (--mean, --std) are wrong "
        "here, and this page is not about the model that you use."
    )


def attacked(victim: Victim, data: ImageData, ids: Sequence[str]) -> str:
    """How many of these images are classified right, in words."""
    return share(classified_right(victim, victim.parameters, data, [data.ids.index(each) for each in ids]))


def share(right: Sequence[bool]) -> str:
    return f"{sum(right)} of {len(right)} ({sum(right) / len(right):.3f})"
