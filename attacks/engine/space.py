"""The search space of an attack: which of its options are tuned, and within which bounds."""

from collections.abc import Mapping
from typing import NamedTuple


class Between(NamedTuple):
    """Any number from `low` to `high`, all orders of magnitude alike."""

    low: float
    high: float


Space = Mapping[str, Between | tuple[float | str | bool, ...]]
"""By option: a range of numbers, or the values to choose from."""
