"""How a contract says that it does not hold: one line, and what was written wrong."""

from typing import Any

import torch
from torch import Tensor


class Fails(AssertionError):
    """A contract does not hold.

    Attributes:
        places: functions or classes of the author's that it is about, the nearest first.
    """

    def __init__(self, wrong: str, *places: Any) -> None:
        super().__init__(wrong)
        self.places = places


def require(condition: object, wrong: str, *places: Any) -> None:
    """
    Raises:
        Fails: the condition is not true.
    """
    if not condition:
        raise Fails(wrong, *places)


def alike(
    found: Tensor, expected: Tensor, what: str, *places: Any, rtol: float | None = None, atol: float | None = None
) -> None:
    """As `torch.testing.assert_close`, in one line.

    Raises:
        Fails: the tensors differ by more.
    """
    try:
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    except AssertionError:
        if found.shape != expected.shape:
            raise Fails(f"{what}: {tuple(found.shape)} in place of {tuple(expected.shape)}", *places) from None
        if not (found.isfinite() & expected.isfinite()).all():
            raise Fails(f"{what}: they differ, and some number is not finite", *places) from None
        most = float((found.double() - expected.double()).abs().max())
        raise Fails(f"{what}: they differ by up to {most:.2g}", *places) from None
