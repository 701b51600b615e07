"""What an attack of an audit takes: with which options it is run in a setting, whether it can be, and for how long."""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log2
from typing import Any, NamedTuple

import torch

from attacks.base import Attack
from attacks.labels import find as find_labels
from benchmark.config import Config
from benchmark.device import best_device
from benchmark.names import known
from benchmark.registry import find
from benchmark.scoring.metrics import score
from benchmark.setting import Setting
from benchmark.tasks.capture import capture_task
from benchmark.tracks.track import Track, read, text
from benchmark.tracks.tuned import is_tuned, read_tuned
from victims.contract import refusal
from victims.data.base import ImageData
from victims.errors import InputError, Notice
from victims.observation import Observation

TRIED = 2  # steps of each stage that are timed

LABELS = "labels"
"""In place of an attack: the methods that read the labels of a batch from its update."""

LABELS_BY = ("ilrg", "alr", "llg", "zlr", "idlg", "row_sums")
"""These methods, the one first that found most labels in the record (`labels-unbalanced`)."""

EVERY = ""
"""In place of a defense: all of them."""


class Cost(NamedTuple):
    """Seconds of an attack and its controls under all its defenses: of the start, and of one task.

    Attributes:
        fixed: whatever the number of tasks.
        task: of a task, without steps.
        search: of a task, of all steps as the attack is configured; 0 for a closed form.
    """

    fixed: float
    task: float
    search: float = 0.0

    def of(self, tasks: int, factor: float = 1.0) -> float:
        """Of so many tasks, with so many times the steps."""
        return self.fixed + tasks * (self.task + factor * self.search)


@dataclass(frozen=True)
class Attempt:
    """An attack of the plan.

    Attributes:
        attack: its name.
        steps: of its search on a task; 0 for a closed form.
        restarts: starts per task, of which it keeps the one with its own lowest cost.
        tuned_on: the track that its options were tuned on; empty where they are its own defaults.
        defenses: those that it takes part in, with their shares of the seconds; in all others it was refused.
        seconds: estimated, of one process, for all its tasks, controls and defenses.
    """

    attack: str
    steps: int
    restarts: int
    tuned_on: str
    defenses: Mapping[str, float]
    seconds: float

    @property
    def seconds_under(self) -> dict[str, float]:
        """Estimated seconds by defense."""
        return {defense: share * self.seconds for defense, share in self.defenses.items()}


class Probe:
    """What a plan is made for: the run, whatever its attack, and one observation of every kind that an attack needs.

    Attributes:
        config: of a run under the first defense; labels that are not given are read by the first of `readers`.
        readers: the label methods that work here, best first.
        reading: seconds of all of them on one task.
        start: seconds in which a run is set up, without its attack.
        task: seconds in which a task is captured and scored.
        refused: what cannot be used: attack or label method, defense and reason.
    """

    def __init__(self, config: Config, defenses: Sequence[str], data: ImageData, know_labels: bool = True) -> None:
        self.config, self.defenses, self.data = config, defenses, data
        self.refused: list[tuple[str, str, str]] = []
        self.seen: dict[tuple[object, ...], Observation] = {}
        self.start, self.task = self.timed()
        self.readers, self.reading = self.read_labels()
        if not know_labels:
            self.config = replace(config, labels=self.readers[0] if self.readers else "none")

    def timed(self) -> tuple[float, float]:
        """`start` and `task`."""
        began = time.perf_counter()
        (batch,) = self.config.make_batches(self.config.make_data(), 1)
        self.observe(self.config)
        set_up = time.perf_counter()
        images, _ = self.data.batch(batch.indices)
        score(images, images)
        return set_up - began, time.perf_counter() - set_up

    def read_labels(self) -> tuple[list[str], float]:
        """`readers` and `reading`; the others are refused."""
        observation, methods = self.observe(self.config), []
        began = time.perf_counter()
        for name in LABELS_BY:
            try:
                find_labels(name)(observation)
                methods.append(name)
            except InputError as error:
                self.refused.append((name, EVERY, str(error)))
        return methods, time.perf_counter() - began

    def observe(self, config: Config) -> Observation:
        """Of the first task, under the run's defense and with what its attacker knows."""
        key = (config.defense, config.precision, config.labels == "given", config.bn)
        if key not in self.seen:
            (batch,) = config.make_batches(self.data, 1)
            victim = config.make_victim(self.data).to(best_device())
            self.seen[key] = capture_task(victim, self.data, batch, config.make_client()).observation
        return self.seen[key]


def nearest_track(config: Config, method: str) -> Track | None:
    """The track, of those on which a method was tuned, whose setting is most like this one; None where it was not.

    A track is the farther, the more it differs in the kind of defense, local training, trained weights, model, data
    set, images in an update and size of images; each counts 1, and the last two for every factor of 2.
    """
    tracks = [read(name) for name in known("track")]
    tuned = [track for track in tracks if is_tuned(track, method)]
    return min(tuned, key=lambda track: distance(track, config), default=None)


def distance(track: Track, config: Config) -> float:
    of_track = Setting(**track.options)

    def kind(defense: str) -> str:
        return "+".join(part.partition(":")[0] for part in defense.split("+"))

    differs = (
        kind(of_track.defense) != kind(config.defense),
        (of_track.lr is None) != (config.lr is None),
        (of_track.victim_weights == "random") != (config.victim_weights == "random"),
        of_track.victim != config.victim,
        of_track.data != config.data,
    )
    return sum(differs) + abs(log2(of_track.batch / config.batch)) + abs(log2(of_track.size / config.size))


def configured(config: Config, method: str) -> tuple[Config, str]:
    """The run of a method, as it was tuned on the nearest track, and that track's name.

    What the attacker knows and the method makes no use of is left out: labels that it finds by itself, statistics.

    Raises:
        InputError: there is no such attack.
    """
    attack: type[Attack] = find("attack", method)
    config = replace(
        config,
        attack=method,
        labels=config.labels if config.labels == "given" or "labels" in attack.needs else "none",
        bn=config.bn if "bn" in attack.uses else "none",
        precision="float64" if attack.analytic else config.precision,
    )
    track = nearest_track(config, method)
    tuned = read_tuned(track, method) if track else None
    if track is None or tuned is None:
        return config, ""
    options: dict[str, Any] = dict(tuned.options)
    how = {name: options.pop(name) for name in ("restarts", "steps") if name in options}
    return replace(config, set=[f"{name}={text(value)}" for name, value in options.items()], **how), track.name


def measured(probe: Probe, method: str) -> tuple[Attempt, Cost] | None:
    """An attack with its time for one task; None where it is refused under every defense, which `refused` then says.

    Raises:
        InputError: there is no such attack.
    """
    find("attack", method)  # a name that is none is a mistake, and no reason to leave it out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # the run itself will say it
        return _measured(probe, method)


def _measured(probe: Probe, method: str) -> tuple[Attempt, Cost] | None:
    try:
        config, track = configured(probe.config, method)
        attack = config.make_attack()
    except Exception as error:
        probe.refused.append((method, EVERY, refusal(error)))
        return None
    set_up, search = 0.0, dict[str, float]()
    for defense in probe.defenses:  # to estimate what some of them did takes longer
        try:
            began = time.perf_counter()
            attack.to(best_device()).begin([probe.observe(replace(config, defense=defense))])
            set_up += time.perf_counter() - began
            search[defense] = seconds_of(attack)
        except Exception as error:
            probe.refused.append((method, defense, refusal(error)))
    if not search:
        return None
    count, searching = len(search), sum(search.values())
    fixed, task = 2 * (count * probe.start + set_up), 2 * count * probe.task  # with the controls
    cost = Cost(fixed, task + 2 * searching) if attack.analytic else Cost(fixed, task, 2 * searching)
    steps = 0 if attack.analytic else sum(attack.plan.values())
    shares = {defense: seconds / searching for defense, seconds in search.items()}
    return Attempt(method, steps, attack.restarts, track, shares, 0.0), cost


def seconds_of(attack: Attack) -> float:
    """Seconds of the session that was begun: all of a closed form; a search is extrapolated from a few steps."""
    session, device, seconds = attack.session, attack.victim.mean.device, 0.0
    while not session.ended:
        stage, times = session.stage, list[float]()
        while not session.ended and session.stage is stage and len(times) <= TRIED:
            began = time.perf_counter()
            attack.advance()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
        seconds += sum(times)  # the first one also prepares
        if not session.ended and session.stage is stage:
            seconds += (attack.plan[stage.name] - len(times)) * sum(times[1:]) / TRIED
            session.skip()
    return seconds
