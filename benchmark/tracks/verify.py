"""`python -m benchmark verify`: tasks of a record are attacked again, to see whether its scores hold."""

import json
import math
import random
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from statistics import fmean, median
from typing import Any, Literal, NamedTuple

import torch

from attacks.base import Attack
from attacks.engine.stage import Reconstruction
from benchmark.config import Config
from benchmark.contents import contents, digests
from benchmark.device import best_device, device_name, reproducible
from benchmark.registry import find
from benchmark.row_maker import settings_of
from benchmark.run_options import with_options
from benchmark.scoring.gallery import read_split
from benchmark.scoring.judge import certificates, label_scores, status
from benchmark.scoring.metrics import Gallery
from benchmark.scoring.networks import networks
from benchmark.scoring.score import degenerate, score
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import Task, capturing
from benchmark.tracks.agreement import (
    COPIES,
    MARGIN,
    SPREAD,
    WIDE,
    Pairs,
    Scores,
    far,
    least_found,
    scored_in_both,
    shifts,
    verdict,
)
from benchmark.tracks.entry import kinds
from benchmark.tracks.missing import missing, require
from benchmark.tracks.record import scored
from benchmark.tracks.track import METRIC, Track, read
from leaderboard import record as kept
from leaderboard.rows import FlatRow
from victims.data.base import ImageData, image_digest
from victims.errors import InputError, Notice
from victims.observation import Observation
from victims.ranges import at_least
from victims.victim import Victim

QUICK = 60  # seconds per task of a record that is drawn because none was named

Found = Literal["agrees", "undecided", "differs"]

CODE = ("attack_digest", "prior_digest", "victim_digest", "defense_digest")
"""Digests of what may have changed without another result, as by a comment: the scores decide."""


class Record(NamedTuple):
    """What is kept of a method on a track: the rows by task."""

    track: Track
    method: str
    tasks: dict[str, list[FlatRow]]

    @property
    def rows(self) -> list[FlatRow]:
        return [*chain.from_iterable(self.tasks.values())]

    @property
    def stale(self) -> str:
        return kept.stale(self.rows, self.track.version)

    @property
    def quick(self) -> bool:
        return median(rows[0]["seconds"] for rows in self.tasks.values()) < QUICK


class Repeat(NamedTuple):
    """What attacks the tasks of a record again."""

    attack: Attack
    batches: Mapping[str, Batch]
    capture: Callable[[Batch], Task]
    given: Callable[[Task], Mapping[str, Any]]
    """What metrics need beside the images of a task."""
    same: bool
    """Whether device, code and version of PyTorch are those of the record, as far as it says them."""


@with_options(also=("data_dir", "weights_dir", "compile"))
def verify(*, track: str = "", attack: str = "", sample: int = 3, seed: int | None = None, **options: Any) -> int:
    """Attack random tasks of a record again, and say whether its scores hold.

    Args:
        track: a name from `make list`; by default any that has a record.
        attack: the method; by default any whose record has tasks of less than a minute.
        sample: how many tasks.
        seed: of the random draw, which it repeats; by default a new one every time.
        options: of a run, see `Options`.

    Returns:
        the exit code: 0 where the scores agree, where these tasks cannot decide it, or nothing was named and nothing
        can be drawn; 1 where they differ.

    Raises:
        InputError: there is no such record, it is stale, or it cannot be repeated here.
    """
    at_least(1, sample=sample)
    reproducible()
    seed = secrets.randbelow(2**32) if seed is None else seed
    chance = random.Random(seed)
    record = chosen(track, attack, chance, options)
    if record is None:
        print(f"no record to draw: there is none, or each is stale or takes {QUICK} s and more for a task")
        return 0
    repeat = prepared(record, options)
    names = chance.sample(sorted(repeat.batches), min(sample, len(repeat.batches)))
    print(
        f"{record.method} on {record.track.name}: {len(names)} of {len(repeat.batches)} tasks, drawn with seed {seed}"
    )
    print(f"{METRIC.upper() + ' in dB':40}  recorded      rerun  difference", flush=True)
    found, words = compared(record, repeat, names)
    print(f"{found}: {words}")
    return int(found == "differs")


def prepared(record: Record, options: Mapping[str, Any]) -> Repeat:
    """
    Args:
        options: of the run.

    Raises:
        InputError: the record cannot be repeated here.
    """
    require(record.track, kinds(record.method), options)
    config = scored(record.track, record.method, options)
    data = config.make_data()
    batches = {batch.task: batch for batch in config.make_batches(data, record.track.tasks)}
    victim, attack = config.make_victim(data), config.make_attack()
    attack.tasks = len(batches)  # what is compiled depends on it
    settings = check(record, config, data, victim, attack, batches)
    device = best_device()
    attack.to(device)
    here = {"device": device_name(), **{key: settings[key] for key in CODE}}
    same = all(row[key] == value for row in record.rows for key, value in here.items())
    same = same and {row["torch_version"] for row in record.rows} <= {"", torch.__version__}
    nets = networks(config.lpips, config.data, config.weights_dir)
    split = read_split(data, config.out, settings["data_digest"])

    def given(task: Task) -> Mapping[str, Any]:
        return {**nets, "gallery": Gallery(split.images, split.places(task.sample_ids, task.images))}

    return Repeat(attack, batches, capturing(victim.to(device), data, config.make_client()), given, same)


def compared(record: Record, repeat: Repeat, names: Sequence[str]) -> tuple[Found, str]:
    """Whether tasks agree with the record, and by which rule; prints a line for each."""
    tasks: list[Task] = []
    pairs: list[Pairs] = []
    both: list[tuple[FlatRow, Scores]] = []
    for name in names:
        task, rows = repeat.capture(repeat.batches[name]), record.tasks[name]
        result = repeat.attack.run([task.observation])
        claims = {row["gradient_evaluations"] for row in rows}
        if claims != {taken := result.gradient_evaluations}:
            said = ", ".join(map(str, sorted(claims)))
            return "differs", f"{name} takes {taken} victim gradients, and the record says {said}"
        found = list(zip(rows, scores(task, result, 0, repeat.given(task)), strict=True))
        pair = [(row[METRIC], again[METRIC]) for row, again in found]
        before, now = (fmean(values) for values in zip(*pair, strict=True))
        print(f"{name:40} {before:9.2f}  {now:9.2f}  {now - before:+10.2f}", flush=True)
        if all(before == now for before, now in pair) and (wrong := far(found)):
            return "differs", f"{name} has the {METRIC.upper()} of the record, and another {', '.join(wrong)}."
        tasks.append(task)
        pairs.append(pair)
        both += found
    if all(row[key] == again[key] for row, again in both for key in scored_in_both(row, again)):
        return "agrees", f"identical, as on the same processor and versions, in {of_which(both)}."
    if repeat.same:
        print("Not identical, though device, code and PyTorch are those of the record, as far as it says them. Either")
        print("the processor or a library is another, or the record does not have the scores of its run.", flush=True)
    agrees, words = verdict(pairs)
    if agrees:
        return "agrees", words
    print(f"These tasks {COPIES} times together, with updates scaled by a few roundings, to see how far that moves")
    print("this method.", flush=True)
    of_task, of_image = (max(SPREAD, MARGIN * by) for by in moved(repeat.attack, tasks, pairs))
    agrees, words = verdict(pairs, of_task, of_image)
    if agrees and (least := least_found(of_task, len(names))) > WIDE:
        more = f"A difference of less than {least:.1f} dB would not be found; give more tasks than SAMPLE={len(names)}."
        return "undecided", f"{words} {more}"
    return ("agrees" if agrees else "differs"), words


def chosen(track: str, attack: str, chance: random.Random, options: Mapping[str, Any]) -> Record | None:
    """The record that is named; where not all of it is, one of those that can be meant, or None where there is none.

    Of these, one for which data and weights are here, if there is one.

    Args:
        options: of the run.

    Raises:
        InputError: what is named is not recorded, or stale; or several methods are named, or none that there is.
    """
    if "," in attack:
        raise InputError(f"verify takes one method, not {attack}; call it for each.")
    if attack:
        find("attack", attack)
    if track and not read(track).recordable:
        raise InputError(f"{track} is none of the project's tracks, which the record is of; give one of `make list`.")
    folder = read(track).path.stem if track else "*"
    found = [
        Record(read(track or each.track), each.method, by_task(each.rows)) for each in kept.read(folder, attack or "*")
    ]
    if not found and (track or attack):
        there = {each.method for each in kept.read(folder)} or {each.track for each in kept.read()}
        what = f"{attack} is not" if attack else "nothing is"
        names = ", ".join(sorted(there)) or "none"
        raise InputError(f"{what} recorded on {track or 'any track'}; recorded are {names}.")
    if not (track and attack):
        able = [record for record in found if not record.stale and record.quick]
        here = [record for record in able if not missing(record.track, kinds(record.method), options)]
        return chance.choice(here or able) if able else None
    (record,) = found
    if record.stale:
        fix = f"run make record TRACK={track} METHOD={attack}"
        raise InputError(f"the record of {attack} on {track} is stale: {record.stale}; {fix}.")
    return record


def by_task(rows: Sequence[FlatRow]) -> dict[str, list[FlatRow]]:
    tasks: dict[str, list[FlatRow]] = {}
    for row in rows:
        tasks.setdefault(row["task"], []).append(row)
    return tasks


def of_which(both: Sequence[tuple[FlatRow, Scores]]) -> str:
    """The scores that were compared of all images, and those that were not."""
    first, *others = (scored_in_both(row, again) for row, again in both)
    everywhere = [key for key in first if all(key in keys for keys in others)]
    left = {*chain.from_iterable(row["higher_is_better"] for row, _ in both)} - {*everywhere}
    return ", ".join(everywhere) + f" (not compared: {', '.join(sorted(left | {'seconds', 'memory'}))})"


def check(
    record: Record, config: Config, data: ImageData, victim: Victim, attack: Attack, batches: Mapping[str, Batch]
) -> dict[str, Any]:
    """Whether a run would write rows of the same images and settings; a Notice says what code is another.

    Returns:
        the settings of the rows of such a run.

    Raises:
        InputError: it would not, so that its scores are not those of the record.
    """
    name = f"the record of {record.method} on {record.track.name}"
    fix = f"run make record TRACK={record.track.name} METHOD={record.method}"
    recorded = {task: {row["image"]: row["image_digest"] for row in rows} for task, rows in record.tasks.items()}
    here = {
        task: {data.ids[index]: image_digest(*data[index]) for index in batch.indices}
        for task, batch in batches.items()
    }
    if recorded != here:
        raise InputError(f"{name} is of other images than those of {config.data} here; get the same, or {fix}.")
    if any(len(rows) > len(recorded[task]) for task, rows in record.tasks.items()):
        raise InputError(f"{name} has an image twice; get the file again, or {fix}.")
    found = digests(contents(config, data, victim, attack, [*batches.values()]))
    settings = json.loads(json.dumps(settings_of(config, attack, victim.preprocessing, found)))
    other = [key for key, value in settings.items() if any(row[key] != value for row in record.rows)]
    if wrong := [key for key in other if key not in (*CODE, "data_digest")]:  # that is of images beside the tasks, too
        raise InputError(f"{name} has another {', '.join(wrong)} than a run has now; {fix}.")
    if changed := ", ".join(key.removesuffix("_digest") for key in CODE if key in other):
        warnings.warn(f"{name} is of other code or weights: {changed} changed since then.", Notice, stacklevel=2)
    return settings


def scores(task: Task, result: Reconstruction, place: int, given: Mapping[str, Any]) -> list[Scores]:
    """Of each image of the task that has this place in a result, with the attacker's cost, as the judge writes it."""
    cost, labels = float(result.cost[place]), label_scores(task, result.labels[place])
    finite = math.isfinite(cost)
    _, found = score(result.pixels[place], task.images, failed=not finite, **given)
    found["degenerate"] = degenerate(task.images).tolist()
    found["certified"] = certificates(result, place, task.images)
    of_task = {"cost": cost if finite else None, "status": status(finite), **labels}
    return [dict(zip(found, values, strict=True)) | of_task for values in zip(*found.values(), strict=True)]


def moved(attack: Attack, tasks: Sequence[Task], pairs: Sequence[Pairs]) -> tuple[float, float]:
    """By how many dB, as root mean squares, tasks and their images move by other rounding: where they are attacked
    together, and their updates are scaled by a few roundings, `COPIES` times.

    Args:
        pairs: of the tasks, with the PSNR that they have alone.
    """
    apart: list[list[float]] = []
    for copy in range(1, COPIES + 1):
        result = attack.run([scaled(task.observation, copy) for task in tasks])
        for place, (task, pair) in enumerate(zip(tasks, pairs, strict=True)):
            found = scores(task, result, place, {})
            apart.append(shifts([(now, again[METRIC]) for (_, now), again in zip(pair, found, strict=True)]))
    of_task, of_image = (fmean(task) ** 2 for task in apart), (by**2 for task in apart for by in task)
    return fmean(of_task) ** 0.5, fmean(of_image) ** 0.5


def scaled(observation: Observation, times: int) -> Observation:
    """The update longer by so many roundings: zeros, signs and ratios of its entries stay."""
    update = {name: g * (1 + times * torch.finfo(g.dtype).eps) for name, g in observation.update.items()}
    return replace(observation, update=update)
