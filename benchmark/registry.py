"""Names on the command line -> classes: a file's name in its folder, or a dotted path to the user's own.

Priors have names of their own, see `priors.names`.
"""

import importlib
import pkgutil
from dataclasses import dataclass

from torch import nn

from attacks.base import Attack
from defenses.base import Defense
from victims.data.base import ImageData
from victims.errors import InputError
from victims.names import imported, unknown


@dataclass(frozen=True)
class Kind:
    """Where classes of one kind live and what they derive from."""

    name: str
    package: str
    base: type


KINDS = {
    kind.name: kind
    for kind in (
        Kind("attack", "attacks", Attack),
        Kind("data", "victims.data", ImageData),
        Kind("victim", "victims.models", nn.Module),
        Kind("defense", "defenses", Defense),
    )
}


def registered(kind: Kind) -> dict[str, type]:
    """Every class of this suite: attacks by their `name`, others by their file, SomeName in `some_name.py`."""
    found = {}
    for module in pkgutil.iter_modules(importlib.import_module(kind.package).__path__):
        path = f"{kind.package}.{module.name}"
        classes = [item for item in vars(importlib.import_module(path)).values() if isinstance(item, type)]
        for item in classes:
            if item.__module__ != path or item is kind.base or not issubclass(item, kind.base):
                continue
            if issubclass(item, Attack):
                found |= {} if "." in item.name else {item.name: item}
            elif item.__name__.lower() == module.name.replace("_", ""):
                found[module.name] = item
    return found


def find(kind_name: str, name: str) -> type:
    """The class that `name` means.

    Raises:
        InputError: lists the known names and the nearest one, or says what is wrong with the dotted path.
    """
    kind = KINDS[kind_name]
    known = registered(kind)
    if name in known:
        return known[name]
    if "." not in name:
        raise InputError(unknown(kind.name, name, known))
    return imported(kind.name, name, kind.base)
