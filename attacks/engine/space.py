"""The search space of an attack: which of its options are tuned, and within which bounds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from victims.errors import InputError
from victims.names import nearest


class Between(NamedTuple):
    """Any number from `low` to `high`, all orders of magnitude alike."""

    low: float
    high: float


Space = Mapping[str, Between | tuple[float | str | bool, ...]]
"""By option: a range of numbers, or the values to choose from."""


def check_space(space: Space, default: Mapping[str, Any]) -> None:
    """Whether what is tried of every option includes its default.

    Args:
        default: values of the options that may be tuned.

    Raises:
        InputError: what is tried of an option does not include its default, or goes down to zero.
    """
    for name, values in space.items():
        if name not in default:
            fix = nearest(name, default) or "remove it."
            raise InputError(f"space has '{name}', which is no option of the method; {fix.strip()}")
        own = default[name]
        if isinstance(values, Between):
            fits, wanted = (
                isinstance(own, (int, float)) and 0 < values.low <= own <= values.high,
                "above 0 and around it",
            )
        else:
            fits, wanted = own in values, "with it among them"
        if not fits:
            raise InputError(f"space tries {values} for {name}, by default {own!r}; give values {wanted}.")
