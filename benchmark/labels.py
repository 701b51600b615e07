"""`python -m benchmark labels`: how many of a batch's labels its update reveals."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from attacks.labels import find
from attacks.labels import methods as known_methods
from benchmark.config import Config
from benchmark.run import reproducible
from benchmark.run_options import in_words, with_options
from benchmark.scoring.label_accuracy import label_accuracies
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import capturing
from leaderboard.options import Options
from leaderboard.statistics import Range, clustered_interval, joined
from leaderboard.table import NOTHING, Table, interval
from victims.errors import InputError

NAMED = ("data", "split", "size", "victim", "victim_weights", "victim_mode", "defense", "seed")
HEADINGS = {
    "counts": "Labels recovered, sum_i min(n_i, found n_i) / B: the label reconstruction accuracy of IGIMS, table 2",
    "existence": "Classes recovered: share of the classes in the batch that were found at least once",
}

Trial = tuple[str, float]
"""The cluster of a trial, and its value."""


@with_options("setting", also=("data_dir", "weights_dir"), but=("adapt",))
def labels(
    *,
    split: str = Options.split,
    methods: str = ",".join(sorted(known_methods())),
    batch: str = "1,4,16,64",
    trials: int = 20,
    defense: str = "none",
    seed: int = Options.seed,
    **options: Any,
) -> None:
    """How many of a batch's labels its update reveals, by method and batch size.

    Args:
        split: the split that the batches come from.
        methods: methods of label recovery with commas between them; also dotted paths to functions of your own.
        batch: images per update; several sizes with commas between them.
        trials: batches per size.
        defense: what the client does to its update: none, or name:parameter.
        seed: of the victim's weights and of the defense.
        options: of a run, see `Options`.
    """
    if trials < 1:
        raise InputError(f"trials is {trials}; give 1 or more.")
    reproducible()
    chosen = {name: find(name) for name in methods.split(",")}
    config = Config(split=split, defense=defense, seed=seed, labels="none", **options)
    images = config.make_data()
    model = config.make_victim(images).to("cuda" if torch.cuda.is_available() else "cpu")
    capture = capturing(model, images, config.make_client())
    sizes = whole_numbers("batch", batch)
    drawn = {B: replace(config, batch=B).make_batches(images, trials) for B in sizes}
    for B, tasks in drawn.items():
        replace(config, batch=B).check_defense(model, images, tasks[0])
    clusters = {B: clusters_of(tasks) for B, tasks in drawn.items()}
    scores: dict[str, dict[tuple[str, int], list[Trial]]] = {name: defaultdict(list) for name in HEADINGS}
    refused: dict[str, str] = {}
    bar = tqdm([(B, task) for B, tasks in drawn.items() for task in tasks], desc="labels", leave=False)
    for B, task in bar:
        captured = capture(task)
        for name, method in chosen.items():
            try:
                accuracies = label_accuracies(method(captured.observation), captured.labels)
            except InputError as error:
                refused.setdefault(name, f"{NOTHING} {error}")
            else:
                for score, value in accuracies.items():
                    scores[score][name, B].append((clusters[B][task.task], value))
    needs = [", ".join(sorted(getattr(method, "needs", ()))) or NOTHING for method in chosen.values()]
    where = in_words(config, NAMED)
    where += f", {len(images.classes)} classes; {trials} {config.batches} batches of each size, 95 % intervals "
    where += "over them" + "".join(sharing(f"those of {B}", found) for B, found in clusters.items()) + "."
    for score, heading in HEADINGS.items():
        columns = {f"B = {B}": [cell(scores[score][name, B], (0, 1)) for name in chosen] for B in drawn}
        print(Table(f"{heading}.", {"method": list(chosen), **columns, "needs": needs}).text())
    print("\n".join([where, *refused.values()]))


def cell(trials: Iterable[Trial], bounds: Range) -> str:
    """Mean and interval of the values of trials, which are within `bounds`; a dash where there are none."""
    trials = list(trials)
    values, clusters = [value for _, value in trials], [cluster for cluster, _ in trials]
    return interval(clustered_interval(values, clusters, bounds) if trials else None)


def clusters_of(batches: Iterable[Batch]) -> dict[str, str]:
    """The cluster of every batch: those that share an image are not independent and count as one."""
    return joined((batch.task, str(index)) for batch in batches for index in batch.indices)


def sharing(them: str, clusters: Mapping[str, str]) -> str:
    """What a reader must know of batches that share images; empty where none do."""
    count = len(set(clusters.values()))
    return f"; {them} share images and count as {count}" if count < len(clusters) else ""


def whole_numbers(option: str, text: str) -> list[int]:
    """`4,16` as numbers.

    Raises:
        InputError: a part is no whole number, or is below 1.
    """
    if not all(part.strip().isdecimal() and int(part) for part in text.split(",")):
        raise InputError(f"{option} takes whole numbers from 1 with commas between them, not '{text}'.")
    return [int(part) for part in text.split(",")]
