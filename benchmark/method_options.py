"""Options of a method: what it takes, what its presets and its tuning give, and single ones that are given as text."""

from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import Any, ClassVar, Protocol, get_type_hints

from attacks.base import Attack, Common
from attacks.engine.preset import Preset
from benchmark.registry import parameters_of, parse
from benchmark.tracks.track import text
from benchmark.tracks.tuned import command, tuned_options
from victims.errors import InputError
from victims.names import nearest

TUNED_OF_ALL = {
    name: Parameter(name, Parameter.KEYWORD_ONLY, annotation=get_type_hints(Common)[name])
    for name in ("restarts", "steps")
}
"""What is tuned of the options that every attack takes."""


class Method(Protocol):
    """A class with options of its own and named sets of them: an attack, or GIML."""

    presets: ClassVar[Mapping[str, Preset]]


def options_of(method: type[Method]) -> dict[str, Parameter]:
    """The method's own constructor options, without those that every attack takes.

    A constructor with `**options: Any` passes them on: then those of the next base are options too.
    """
    found: dict[str, Parameter] = {}
    for base in method.__mro__:
        if "__init__" in vars(base):
            own = parameters_of(base)
            found = {name: p for name, p in own.items() if p.kind is p.KEYWORD_ONLY} | found
            if not any(p.kind is p.VAR_KEYWORD and p.annotation is Any for p in own.values()):
                break
    return {name: p for name, p in found.items() if name not in Common.__annotations__}


def of_preset(method: type[Method], name: str, preset: str, track: str) -> dict[str, Any]:
    """The options of a preset.

    Args:
        name: of the method, as a user gives it.
        track: that of the preset `tuned`.

    Raises:
        InputError: there is no such preset; or nothing was tuned, or what cannot be used now.
    """
    if preset == "tuned":
        return of_tuning(method, name, track)
    presets = {"default": {}, **method.presets}
    if preset not in presets:
        there = [*presets, "tuned"]
        raise InputError(f"{name} has no preset '{preset}'; {nearest(preset, there)}it has {', '.join(there)}.")
    return dict(presets[preset])


def of_tuning(method: type[Method], name: str, track: str) -> dict[str, Any]:
    """What was tuned for a method on a track.

    Raises:
        InputError: nothing was, or what the method does not take now.
    """
    tuned, own = tuned_options(track, name), options_of(method) | TUNED_OF_ALL
    again = f"run {command(track, name)}"
    for option, value in tuned.items():
        if option not in own:
            raise InputError(f"{name} was tuned with '{option}', which is no option of it now; {again}")
        try:
            same = parse(own[option], text(value), name) == value
        except InputError:
            same = False
        if not same:
            wrong = f"{name} was tuned with {option} {value!r}, which is no value of this option now"
            raise InputError(f"{wrong}; {again}")
    return tuned


def of_texts(method: type[Method], name: str, texts: Sequence[str]) -> dict[str, Any]:
    """Single options, each `KEY=VALUE`, in the types of the method's constructor.

    Raises:
        InputError: the method has no such option, or it takes another value.
    """
    own = options_of(method)
    chosen = {}
    for one in texts:
        option, equals, value = one.partition("=")
        if not equals:
            raise InputError(f"'{one}' is no KEY=VALUE; write for example {next(iter(own))}=1.")
        if option not in own:
            near = nearest(option, own)
            raise InputError(f"{name} has no option '{option}'; {near}it takes {', '.join(own)}.")
        chosen[option] = parse(own[option], value, f"{name} option")
    return chosen


def on_top(preset: Mapping[str, Any], single: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a preset with single ones on top; steps of a stage replace tuned steps in total."""
    replaced = {"steps"} if any(name.startswith("steps") for name in single) else set()
    return {name: value for name, value in preset.items() if name not in replaced} | dict(single)


def default_prior(method: type[Attack], preset: str) -> str:
    """The prior that a method takes where none is named.

    Raises:
        InputError: the preset is of a prior that is not shipped.
    """
    if preset in method.presets and (command := method.presets[preset].trained_by):
        raise InputError(
            f"{method.name}'s preset {preset} is of a prior that is not shipped; train it ({command}) and give it with "
            "--prior, or leave --preset out."
        )
    return method.default_prior
