"""How many images of each class are in a batch, read from the update alone: one file per published method.

A method is a function Observation -> sorted labels (B,), under the name of its file; see `base.method`. The files
import torch, so each is imported only when its method is used.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from victims.errors import InputError
from victims.names import at, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from victims.observation import Observation

    Method = Callable[[Observation], Tensor]


def names() -> list[str]:
    """Every method of this suite, sorted; imports none of them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def methods() -> "dict[str, Method]":
    """Every method of this suite by name, imported."""
    return {name: find(name) for name in names()}


def find(name: str) -> "Method":
    """The method that `name` means: one of this suite's, or a dotted path to a function of the user's own.

    Raises:
        InputError: lists the known names and the nearest one, or says what is wrong with the dotted path.
    """
    if name in names():
        return getattr(importlib.import_module(f"{__name__}.{name}"), name)
    if "." not in name:
        raise InputError(unknown("label method", name, names()))
    method = at("label method", name)
    if not callable(method):
        raise InputError(f"'{name}' is not a function of an observation; see attacks/labels/base.py.")
    return method


def infer(observation: "Observation", method: str) -> "Observation":
    """The observation with the labels that `method` reads from its update, in place of any given.

    They are sorted, as given ones are: which dummy image has which label does not matter, because images are matched
    to the private ones afterwards.

    Raises:
        InputError: there is no such method, or it cannot work on this observation.
    """
    return replace(observation, knowledge=replace(observation.knowledge, labels=find(method)(observation)))
