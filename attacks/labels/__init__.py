"""How many images of each class are in a batch, read from the update alone: one file per published method.

A method is a function Observation -> sorted labels (B,), under the name of its file; see `base.method`.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from victims.errors import InputError
from victims.names import unknown
from victims.observation import Observation


def methods() -> dict[str, Callable[[Observation], Tensor]]:
    """Every method of this suite: in the folder's file `some_name.py` the function some_name."""
    modules = {m.name: importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)}
    return {name: getattr(module, name) for name, module in modules.items() if hasattr(module, name)}


def find(name: str) -> Callable[[Observation], Tensor]:
    """The method that `name` means: one of this suite's, or a dotted path to a function of the user's own.

    Raises:
        InputError: lists the known names and the nearest one, or says what is wrong with the dotted path.
    """
    known = methods()
    if name in known:
        return known[name]
    module, dot, attribute = name.rpartition(".")
    if not dot:
        raise InputError(unknown("label method", name, known))
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"cannot import the label method '{name}': {error}.") from None


def infer(observation: Observation, method: str) -> Observation:
    """The observation with the labels that `method` reads from its update in place of any given.

    They are sorted, as given ones are: which dummy image has which does not matter, for images are matched afterwards.

    Raises:
        InputError: there is no such method, or it cannot work on this observation.
    """
    return replace(observation, knowledge=replace(observation.knowledge, labels=find(method)(observation)))
