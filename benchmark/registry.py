"""Names on the command line -> classes: a file's name in its folder, or a dotted path to the user's own.

Priors have names of their own, see `priors.catalog`.
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
    """Every class of this suite: in the folder's file `some_name.py` the class SomeName, letter case aside."""
    found = {}
    for module in pkgutil.iter_modules(importlib.import_module(kind.package).__path__):
        items = vars(importlib.import_module(f"{kind.package}.{module.name}")).items()
        for name, item in items:
            named = name.lower() == module.name.replace("_", "")
            if named and isinstance(item, type) and issubclass(item, kind.base):
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
