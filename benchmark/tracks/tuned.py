"""What was tuned: the options of a method for a track, in a YAML file that `PRESET=tuned` reads."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from benchmark.tracks.track import METRIC, Track, read
from leaderboard.files import write_atomically
from victims.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The best of a track's trials of a method.

    Attributes:
        rule: of the track, by which it was tuned.
        options: of the method's constructor; among them `restarts` and, where they decide what it costs, `steps`.
        score: mean of the metric over the images for tuning.
        default: the same with the method's default options.
    """

    track: str
    rule: Mapping[str, int]
    method: str
    options: Mapping[str, Any]
    score: float
    default: float

    def write(self) -> Path:
        """
        Raises:
            InputError: the folder beside the track cannot be written.
        """
        path = read(self.track).tuned(self.method)
        content = f"# The best of {self.rule['trials']} trials by mean {METRIC.upper()} on images for tuning.\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content + yaml.safe_dump(asdict(self), sort_keys=False))
        except OSError as error:
            raise InputError(
                f"cannot write {path} ({error.strerror}); tune a track of your own, a .yaml file."
            ) from None
        return path


def read_tuned(track: Track, method: str) -> Tuned | None:
    """What was tuned for a method on a track, by whatever rule; None where nothing was.

    Raises:
        InputError: the file is damaged, or of another method or track.
    """
    path = track.tuned(method)
    if not path.is_file():
        return None
    try:
        tuned = Tuned(**yaml.safe_load(path.read_text()))
        if (tuned.method, Path(tuned.track).stem) != (method, track.path.stem):
            raise ValueError("of another method or track")
        if not all(type(score) in (int, float) and isfinite(score) for score in (tuned.score, tuned.default)):
            raise ValueError("no score")  # true is none
        return replace(tuned, rule=dict(tuned.rule), options=dict(tuned.options))
    except (OSError, TypeError, ValueError, yaml.YAMLError):
        fix = f"run {command(track.name, method)}"
        raise InputError(
            f"{path} is damaged: it is not what make tune writes for {method} on {track.name}; {fix}"
        ) from None


def tuned_options(track: str, method: str) -> dict[str, Any]:
    """The options that were tuned for a method on a track.

    Raises:
        InputError: none were tuned, or by another rule than the track has now, or the file is damaged.
    """
    found, fix = read(track), f"run {command(track, method)}"
    tuned = read_tuned(found, method)
    if tuned is None:
        raise InputError(f"{method} has not been tuned on the track {track}; {fix}")
    if tuned.rule != found.rule:
        there = tuned.rule
        other = [f"{name} {there.get(name)}, now {now}" for name, now in found.rule.items() if there.get(name) != now]
        raise InputError(f"{method} was tuned on {track} by another rule ({'; '.join(other)}); {fix}")
    return dict(tuned.options)


def is_tuned(track: Track, method: str) -> bool:
    """Whether there are options for a method that were tuned by the rule that the track has now."""
    tuned = read_tuned(track, method)
    return tuned is not None and tuned.rule == track.rule


def command(track: str, method: str) -> str:
    return f"make tune TRACK={track} METHOD={method}."
