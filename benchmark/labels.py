"""`python -m benchmark labels`: how many of a batch's labels its update reveals."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from attacks.labels import find
from attacks.labels import methods as known_methods
from benchmark.device import best_device, reproducible
from benchmark.run_options import in_words, with_options
from benchmark.scoring.label_accuracy import label_accuracies
from benchmark.setting import Setting
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import capturing
from leaderboard.labels_board import HEADINGS, LabelRow, table
from leaderboard.options import Options, abouts
from leaderboard.statistics import joined
from leaderboard.table import NOTHING
from victims.data.base import ImageData
from victims.errors import InputError
from victims.names import separated
from victims.ranges import at_least

NAMED = ("data", "split", "size", "victim", "victim_weights", "victim_mode", "defense", "seed")


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
    at_least(1, trials=trials)
    reproducible()
    chosen = {name: find(name) for name in separated(methods)}
    setting = Setting(split=split, defense=defense, seed=seed, labels="none", **options)
    images, sizes = setting.make_data(), whole_numbers("batch", batch)
    rows, refused = recovered(setting, images, [*chosen], sizes, trials)
    needs = [", ".join(sorted(getattr(method, "needs", ()))) or NOTHING for method in chosen.values()]
    where = in_words(setting, NAMED)
    where += f", {len(images.classes)} classes; {trials} {setting.batches} batches of each size, 95 % intervals "
    clusters = {B: {row["task"]: row["cluster"] for row in rows if row["batch_size"] == B} for B in sizes}
    where += "over them" + "".join(sharing(f"those of {B}", found) for B, found in clusters.items()) + "."
    for score in HEADINGS:
        found = table(rows, score, [*chosen])
        print(replace(found, columns={**found.columns, "needs": needs}).text())
    print("\n".join([where, *(f"{NOTHING} {why}" for why in refused.values())]))


def recovered(
    setting: Setting, images: ImageData, methods: Collection[str], sizes: Iterable[int], trials: int
) -> tuple[list[LabelRow], dict[str, str]]:
    """How well methods read the labels of the first batches of each size.

    Returns:
        a row for each batch and method, see `leaderboard.labels_board`, and why methods were refused.

    Raises:
        InputError: there is no such method, or the setting cannot be run.
    """
    chosen = {name: find(name) for name in methods}
    model = setting.make_victim(images).to(best_device())
    drawn = {B: replace(setting, batch=B).make_batches(images, trials) for B in sizes}
    captures = {}
    for B, tasks in drawn.items():
        of_size = replace(setting, batch=B)
        of_size.check_defense(model, images, tasks[0])
        captures[B] = capturing(model, images, of_size.make_client())
    clusters = {B: clusters_of(tasks) for B, tasks in drawn.items()}
    alike = {about.rows[0]: getattr(setting, name) for name, about in abouts().items() if about.role == "setting"}
    alike |= {"victim_weights": setting.weights_label(), "seed": setting.seed}
    rows: list[LabelRow] = []
    refused: dict[str, str] = {}
    bar = tqdm([(B, task) for B, tasks in drawn.items() for task in tasks], desc="labels", leave=False)
    for B, task in bar:
        captured = captures[B](task)
        of_task = {**alike, "batch_size": B, "task": task.task, "cluster": clusters[B][task.task]}
        for name, method in chosen.items():
            try:
                scores = label_accuracies(method(captured.observation), captured.labels)
            except InputError as error:
                refused.setdefault(name, str(error))
            else:
                rows.append({**of_task, "label_method": name, **scores})
    return rows, refused


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
    parts = separated(text)
    if not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"{option} takes whole numbers from 1 with commas between them, not '{text}'.")
    return [*map(int, parts)]
