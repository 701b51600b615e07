"""Refusals of options that mean nothing, by their names."""

import math

from victims.errors import InputError


def above_zero(**options: float | None) -> None:
    """
    Raises:
        InputError: names the first option that is given and zero, negative, infinite or NaN.
    """
    for name, value in options.items():
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} is {value:g}; give a number above 0.")


def not_negative(**options: float) -> None:
    """
    Raises:
        InputError: names the first option that is negative, infinite or NaN.
    """
    for name, value in options.items():
        if not 0 <= value < math.inf:
            raise InputError(f"{name} is {value:g}; give 0 or a number above.")


def at_least(least: int, **counts: int | None) -> None:
    """
    Raises:
        InputError: names the first count that is given and smaller.
    """
    for name, count in counts.items():
        if count is not None and count < least:
            raise InputError(f"{name} is {count}; give {least} or more.")
