"""The loops that the suite is compared with, by the form that they are written in."""

from collections.abc import Callable, Mapping

from attacks.base import Attack
from tests.plain import authors, breaching, loops
from tests.plain.loops import Loop, Server

FORMS: Mapping[str, Mapping[str, Callable[[Attack, Server, int], Loop]]] = {
    "textbook": loops.LOOPS,
    "breaching": {"ig": breaching.ig},
    "authors": {"ig": authors.ig, "gias": authors.gias},
}


def plain(attack: Attack, form: str = "textbook") -> list[Loop]:
    """The loop of every restart of an attack that is set up on one task; nothing is computed yet."""
    server = Server(attack)
    return [FORMS[form][attack.name](attack, server, restart) for restart in range(attack.instances)]
