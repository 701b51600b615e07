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
from benchmark.scoring.score import score
from benchmark.setting import Setting
from benchmark.tasks.capture import capture_task
from benchmark.tracks.track import Track, read, text
from benchmark.tracks.tuned import is_tuned, read_tuned
from victims.contract import refusal
from victims.data.base import ImageData
from victims.errors import Notice
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
class Under:
    """How an attack is run under one defense.

    Attributes:
        share: of the seconds of all its runs.
        steps: of its search on a task; 0 for a closed form.
        restarts: starts per task, of which it keeps the one with its own lowest cost.
        tuned_on: the track that its options were tuned on; empty where they are its own defaults.
    """

    share: float
    steps: int = 0
    restarts: int = 0
    tuned_on: str = ""


@dataclass(frozen=True)
class Attempt:
    """An attack of the plan.

    Attributes:
        attack: its name.
        under: the defenses that it takes part in; under all others it was refused.
        seconds: estimated, of one process, for all its tasks, controls and defenses.
    """

    attack: str
    under: Mapping[str, Under]
    seconds: float

    @property
    def steps(self) -> int:
        """The fewest of its searches; 0 for a closed form."""
        return min(how.steps for how in self.under.values())

    @property
    def seconds_under(self) -> dict[str, float]:
        """Estimated seconds by defense."""
        return {defense: how.share * self.seconds for defense, how in self.under.items()}


class Probe:
    """What a plan is made for: the run, whatever its attack, and one observation of every kind that an attack needs.

    Attributes:
        defenses: of the client.
        readers: the label methods that work here, best first, by defense.
        reading: seconds of all of them on one task under every defense.
        start: seconds in which a run is set up, without its attack.
        task: seconds in which a task is captured and scored.
        refused: what cannot be used: attack or label method, defense and reason.
    """

    def __init__(self, config: Config, defenses: Sequence[str], data: ImageData, know_labels: bool = True) -> None:
        self.config, self.defenses, self.data, self.know_labels = config, defenses, data, know_labels
        self.refused: list[tuple[str, str, str]] = []
        self.seen: dict[tuple[object, ...], Observation] = {}
        self.start, self.task = self.timed()
        self.readers, self.reading = self.read_labels()

    def under(self, defense: str) -> Config:
        """Of a run under a defense; labels that are not given are read by the first label method that works there."""
        config = replace(self.config, defense=defense)
        if self.know_labels:
            return config
        return replace(config, labels=next(iter(self.readers[defense]), "none"))

    def timed(self) -> tuple[float, float]:
        """`start` and `task`."""
        began = time.perf_counter()
        (batch,) = self.config.make_batches(self.config.make_data(), 1)
        self.observe(self.config)
        set_up = time.perf_counter()
        images, _ = self.data.batch(batch.indices)
        score(images, images)
        return set_up - began, time.perf_counter() - set_up

    def read_labels(self) -> tuple[dict[str, list[str]], float]:
        """`readers` and `reading`; the others are refused."""
        methods: dict[str, list[str]] = {defense: [] for defense in self.defenses}
        seen = {defense: self.observe(replace(self.config, defense=defense)) for defense in self.defenses}
        began = time.perf_counter()
        for defense, observation in seen.items():
            for name in LABELS_BY:
                try:
                    find_labels(name)(observation)
                    methods[defense].append(name)
                except Exception as error:
                    self.refused.append((name, defense, refusal(error)))
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
    set_up, runs = 0.0, dict[str, tuple[Attack, str, float]]()
    for defense in probe.defenses:  # to estimate what some of them did takes longer
        try:
            config, track = configured(probe.under(defense), method)
            attack = config.make_attack()
            began = time.perf_counter()
            attack.to(best_device()).begin([probe.observe(config)])
            set_up += time.perf_counter() - began
            runs[defense] = attack, track, seconds_of(attack)
        except Exception as error:
            probe.refused.append((method, defense, refusal(error)))
    if not runs:
        return None
    count, searching = len(runs), sum(seconds for _, _, seconds in runs.values())
    fixed, task = 2 * (count * probe.start + set_up), 2 * count * probe.task  # with the controls
    analytic = all(attack.analytic for attack, _, _ in runs.values())
    cost = Cost(fixed, task + 2 * searching) if analytic else Cost(fixed, task, 2 * searching)
    under = {
        defense: Under(seconds / searching, 0 if analytic else sum(attack.plan.values()), attack.restarts, track)
        for defense, (attack, track, seconds) in runs.items()
    }
    return Attempt(method, under, 0.0), cost


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
