"""`python -m benchmark labels`: how many of a batch's labels its update reveals."""

from collections import defaultdict
from collections.abc import Sequence
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
from benchmark.tasks.capture import capturing
from leaderboard.options import Options
from leaderboard.statistics import Range, clustered_interval
from leaderboard.table import NOTHING, Table, interval
from victims.errors import InputError

NAMED = ("data", "split", "size", "victim", "victim_weights", "victim_mode", "defense", "seed")
HEADINGS = {
    "counts": "Labels recovered, sum_i min(n_i, found n_i) / B: the label reconstruction accuracy of IGIMS, table 2",
    "existence": "Classes recovered: share of the classes in the batch that were found at least once",
}


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
    scores: dict[str, dict[tuple[str, int], list[float]]] = {name: defaultdict(list) for name in HEADINGS}
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
                    scores[score][name, B].append(value)
    needs = [", ".join(sorted(getattr(method, "needs", ()))) or NOTHING for method in chosen.values()]
    where = in_words(config, NAMED)
    where += f", {len(images.classes)} classes; {trials} {config.batches} batches of each size, 95 % intervals "
    where += "over them."
    for score, heading in HEADINGS.items():
        columns = {f"B = {B}": [cell(scores[score][name, B], (0, 1)) for name in chosen] for B in drawn}
        print(Table(f"{heading}.", {"method": list(chosen), **columns, "needs": needs}).text())
    print("\n".join([where, *refused.values()]))


def cell(values: Sequence[float], bounds: Range) -> str:
    """Mean and interval of independent trials, of values within `bounds`; a dash where there are none."""
    clusters = list(map(str, range(len(values))))
    return interval(clustered_interval(values, clusters, bounds) if values else None)


def whole_numbers(option: str, text: str) -> list[int]:
    """`4,16` as numbers.

    Raises:
        InputError: a part is no whole number, or is below 1.
    """
    if not all(part.strip().isdecimal() and int(part) for part in text.split(",")):
        raise InputError(f"{option} takes whole numbers from 1 with commas between them, not '{text}'.")
    return [int(part) for part in text.split(",")]
