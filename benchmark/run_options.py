"""Commands that take options of a run beside their own."""

import inspect
from collections.abc import Callable, Collection
from inspect import Parameter
from typing import Any, TypeVar, get_type_hints

from leaderboard.options import Options, Role, abouts, defaults

C = TypeVar("C", bound=Callable[..., Any])


def with_options(*roles: Role, also: Collection[str] = (), but: Collection[str] = ()) -> Callable[[C], C]:
    """A command whose `**options` are the options of a run of these roles, with their types and defaults.

    Those that the command has as parameters of its own are left out.

    Args:
        also: further options.
        but: options that the command decides itself.
    """
    hints = get_type_hints(Options)

    def taken(command: C) -> C:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        more = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])
            for name, default in defaults().items()
            if (abouts()[name].role in roles or name in also) and name not in {*but, *(p.name for p in own)}
        ]
        command.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        return command

    return taken


def in_words(options: Options, named: Collection[str]) -> str:
    """The `named` options, and those of the setting that are not as by default."""
    changed = [
        name
        for name, default in defaults().items()
        if abouts()[name].role == "setting" and getattr(options, name) != default and name not in named
    ]
    return ", ".join(f"{name} {getattr(options, name)}" for name in (*named, *changed))
