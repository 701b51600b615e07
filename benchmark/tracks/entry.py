"""An attack on a track: the run that the track, the attack's options and the budget make."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from attacks.base import Attack
from benchmark.command_line import options_of_track
from benchmark.config import Config
from benchmark.names import Kind, known
from benchmark.registry import find
from benchmark.setting import Setting
from benchmark.tasks.capture import capture_task
from benchmark.tracks.budget import most_steps
from benchmark.tracks.track import Track, read, text
from leaderboard.options import abouts
from leaderboard.rows import FlatRow
from victims.contract import refusal
from victims.errors import InputError, Notice
from victims.names import separated
from victims.observation import Observation

T = TypeVar("T")

ALL = "all"
"""What `METHOD=` names every method by."""

Chosen = Mapping[str, Any]
"""Constructor options of an attack, by name; among them `restarts`."""


def entry(track: Track, method: str, chosen: Chosen, **others: Any) -> Config:
    """The run of an attack on a track, without the budget.

    Args:
        others: options of the run that the track leaves open.

    Raises:
        InputError: there is no such attack, the track has no prior of its kind, or its options have other values.
    """
    attack: type[Attack] = find("attack", method)
    if "prior" in attack.needs and attack.takes.kind not in track.priors:
        raise InputError(f"the track has no {attack.takes.kind}, which {method} needs; name another with --track.")
    own = [f"{name}={text(value)}" for name, value in chosen.items() if name != "restarts"]
    options = {"track": track.name, "preset": "default", **options_of_track(track), **others}
    return Config(attack=method, restarts=chosen.get("restarts"), set=own, **options)


def setting_of(track: Track, options: Mapping[str, Any]) -> Setting:
    """What is attacked on a track.

    Args:
        options: of the run, beside those of the track.
    """
    return Setting(**{**options_of_track(track), **options})


def methods(named: str, kind: Kind = "attack") -> list[str]:
    """Those that `METHOD=` names: attacks, or label methods."""
    return [*known(kind)] if named == ALL else separated(named)


def kinds(named: str) -> set[str]:
    """The kinds of prior that these methods take."""
    attacks: dict[str, type[Attack]] = of_each(named, lambda method: find("attack", method))[0]
    return {attack.takes.kind for attack in attacks.values() if "prior" in attack.needs}


def of_each(named: str, do: Callable[[str], T]) -> tuple[dict[str, T], dict[str, str]]:
    """What is done with each method that `METHOD=` names: with those between commas, or `all` that the track takes.

    Returns:
        what it gave by method, and of `all` why the others were left out.

    Raises:
        InputError: a method that was named by its name was refused.
    """
    found: dict[str, T] = {}
    left_out: dict[str, str] = {}
    for method in methods(named):
        try:
            found[method] = do(method)
        except Exception as error:  # a refusal, or of the method's own file, which stops no other method
            if named != ALL:
                raise
            left_out[method] = refusal(error)
    return found, left_out


def say_left_out(methods: Mapping[str, str]) -> None:
    """A line each: the method, and why."""
    for method, why in methods.items():
        print(f"left out {method}: {why}")


def track_of(config: Config, evaluations: int) -> str:
    """What a row says of the track: its name where the run attacks in its setting and within its budget, else nothing.

    Args:
        evaluations: victim gradients that were computed for the batch.
    """
    name = config.track_taken
    if not name or evaluations > read(name).evaluations:
        return ""
    try:
        own = entry(read(name), config.attack, {})
    except InputError:  # the track has no prior for it
        return ""
    decided = [option for option, about in abouts().items() if about.role in ("setting", "knowledge")]
    return name if all(getattr(config, option) == getattr(own, option) for option in decided) else ""


def warn_of_budget(config: Config, rows: Iterable[FlatRow]) -> None:
    """A Notice where more gradients were computed for a batch than the run's track allows."""
    spent = max((row["gradient_evaluations"] for row in rows), default=0)
    if config.track and spent > (allowed := read(config.track).evaluations):
        said = f"{spent} victim gradients per batch, where {config.track} allows {allowed}"
        fix = "the rows are not on the track; run with --preset tuned, or with fewer --steps"
        warnings.warn(f"{said}: {fix}.", Notice, stacklevel=1)


def first_observation(config: Setting) -> Observation:
    """The observation of the run's first task.

    Raises:
        InputError: the setting cannot be run.
    """
    data = config.make_data()
    (batch,) = config.make_batches(data, 1)
    return capture_task(config.make_victim(data), data, batch, config.make_client()).observation


def within_budget(config: Config, track: Track, observation: Observation) -> Config:
    """The run with as many steps as the track's budget allows.

    Raises:
        InputError: the attack cannot work on such an observation, or not within the budget.
    """
    steps = most_steps(lambda steps: replace(config, steps=steps).make_attack(), observation, track.evaluations)
    return replace(config, steps=steps)


def from_one_start(track: Track, method: str, options: Mapping[str, Any], observation: Observation) -> Config:
    """The run of a method with its default options from one start, which costs least: whether it can be used at all.

    Raises:
        InputError: it cannot.
    """
    return within_budget(entry(track, method, {"restarts": 1}, **options), track, observation)
