"""New tasks of a track, drawn from a secret: images that its record has not, and new weights of the victim.

All that is drawn follows from the secret, 128 random bits, so that anybody can repeat the draw once it is told.
"""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from benchmark.device import best_device
from benchmark.sealed.observations import write
from benchmark.setting import Setting
from benchmark.tasks.batches import RULES, Batch, by_rule, class_counts
from benchmark.tasks.capture import Task, capturing
from benchmark.tracks.entry import setting_of
from benchmark.tracks.track import Track
from victims.data.base import ImageData, digest
from victims.errors import InputError
from victims.ranges import at_least
from victims.seeds import seed_of


@dataclass(frozen=True)
class Draw:
    """What decides the tasks.

    Attributes:
        new_weights: whether those of the victim are drawn too; a trained inverter knows only the track's own.
    """

    track: Track
    tasks: int
    secret: str
    new_weights: bool = True

    def __post_init__(self) -> None:
        at_least(1, sample=self.tasks)


@dataclass(frozen=True)
class Drawn:
    """The tasks with their private images, for the judge alone.

    Attributes:
        config: of the clients.
        recorded: how many of the images are among those of the track's record too, for there are no others.
    """

    config: Setting
    data: ImageData
    tasks: list[Task]
    recorded: int


def new_secret() -> str:
    return secrets.token_hex(16)


def draw(what: Draw, options: Mapping[str, Any], observations: Path | None = None) -> Drawn:
    """The tasks of a draw.

    Args:
        options: of the run: where data, weights and results are.
        observations: the file for the attacker that is written.

    Raises:
        InputError: the track cannot be run, or lists its batches.
    """
    config = setting_of(what.track, options)
    if config.batches not in RULES:
        raise InputError(f"{what.track.name} lists its batches, so that no new ones can be drawn; take another track.")
    data = config.make_data()
    taken = {index for batch in config.make_batches(data, what.track.tasks) for index in batch.indices}
    if what.new_weights:
        config = replace(config, seed=seed_of(what.secret, "victim"))
    net, preprocessing = config.make_net(data)
    capture = capturing(config.as_victim(data, net, preprocessing).to(best_device()), data, config.make_client())
    tasks = [capture(batch) for batch in batches(what, config, data, taken)]
    if observations:
        seen = [task.observation for task in tasks]
        write(observations, what.track, seed_of(what.secret, "attack"), data, net, preprocessing, seen)
    used = {name for task in tasks for name in task.sample_ids}
    return Drawn(config, data, tasks, len(used & {data.ids[index] for index in taken}))


def batches(what: Draw, config: Setting, data: ImageData, taken: Collection[int]) -> list[Batch]:
    """Batches by the rule of the track, in an order that the secret decides; images that are taken come last."""

    def order(data: ImageData, turn: int) -> list[int]:
        keys = [(index in taken, digest(f"{what.secret} {turn} {name}")) for index, name in enumerate(data.ids)]
        return sorted(range(len(data)), key=keys.__getitem__)

    defense = config.make_defense()
    counts = (defense.class_counts(config.batch) if defense else []) or class_counts(config.batches, config.batch)
    drawn = by_rule(data, config.data, config.batches, config.batch, counts, order)
    return [Batch(f"task-{number}", indices) for number, indices in enumerate(islice(drawn, what.tasks))]
