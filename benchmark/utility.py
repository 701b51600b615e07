"""`python -m benchmark utility`: what a defense costs the client that uses it."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from benchmark.device import best_device
from benchmark.labels import clusters_of, sharing
from benchmark.run import reproducible
from benchmark.run_options import in_words, with_options
from benchmark.scoring.accuracy import classified_right
from benchmark.setting import Setting
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import client_update
from defenses.base import Defense, parts
from leaderboard.labels_board import cell
from leaderboard.options import Options
from leaderboard.table import NOTHING, Table
from victims.data.base import ImageData
from victims.names import separated
from victims.ranges import above_zero, at_least
from victims.seeds import seed_of
from victims.victim import Gradient, Victim

DELTA = 1e-5
FIXED = (
    *("split", "batches", "adapt", "amp", "epochs", "mini_batch", "clients", "local_optimizer"),
    *("rounds", "between", "epochs_trained"),
)
NAMED = ("data", "size", "victim", "victim_weights", "victim_mode")


@with_options("setting", also=("data_dir", "weights_dir"), but=FIXED)
def utility(
    *,
    defense: str = "none,sparsification:0.5,sparsification:0.9",
    data: str = Options.data,
    batch: int = 16,
    trials: int = 20,
    lr: float = 0.05,
    steps: int = 200,
    seeds: int = 3,
    **options: Any,
) -> None:
    """What defenses cost: the error of the update, the accuracy after training, and the privacy budget.

    Args:
        defense: what the client does to its update: none, or name:parameter:...; several with commas between them.
        data: the data set; its train split trains, its test split tests.
        batch: images per update.
        trials: batches for which the update is compared with the undefended one, at the initial weights.
        lr: learning rate of the training by plain SGD, in which every step is one client's update.
        steps: steps of the training.
        seeds: training runs, each from other initial weights.
        options: of a run, see `Options`.
    """
    at_least(1, trials=trials, steps=steps, seeds=seeds)
    above_zero(lr=lr)
    reproducible()
    config = partial(Setting, data=data, **options)
    chosen = {text: config(defense=text).make_defense() for text in separated(defense)}
    train, test = config().make_data("train"), config().make_data("test")
    tested = test.readable(range(len(test)))
    lines = []
    bar = tqdm(total=len(chosen) * seeds, desc="utility", leave=False)
    for text, client in chosen.items():
        accuracies = []
        batches = config(defense=text, batch=batch).make_batches(train, max(steps, trials))
        for seed in range(seeds):
            model = config(defense=text, seed=seed).make_victim(train)
            model.to(best_device())
            if seed == 0:
                config(defense=text, batch=batch).check_defense(model, train, batches[0])
                errors = [update_error(model, client, train, of_trial) for of_trial in batches[:trials]]
            theta = train_defended(model, client, train, batches[:steps], lr, seed)
            accuracies.append(accuracy(model, theta, test, tested))
            bar.update()
        spent = budget(client)
        epsilon = f"{spent(steps, batch / len(train), DELTA):.3g}" if spent else NOTHING
        clusters = clusters_of(batches[:trials])
        names = [clusters[of_trial.task] for of_trial in batches[:trials]]
        norms, cosines = (zip(names, values, strict=True) for values in zip(*errors, strict=True))
        # An open end: trials that are all equal, as without a defense, are no sample and have no interval.
        errors_shown = cell(norms, (0, math.inf)), cell(cosines, (-math.inf, 1))
        lines.append([text, *errors_shown, cell(zip(map(str, range(seeds)), accuracies, strict=True), (0, 1)), epsilon])
    bar.close()
    headings = ("defense", "norm", "cosine", "accuracy", "epsilon")
    where = in_words(config(), NAMED)
    above = (
        f"{where}. Norm over that of the undefended update, and cosine to it: {trials} batches of {batch} at the "
        f"initial weights, 95 % intervals over them{sharing('they', clusters)}. Accuracy on the {len(tested)} test "
        f"images after {steps} steps of SGD with learning rate {lr}, 95 % interval over {seeds} initial weights."
    )
    below = f"epsilon: of this training, at delta {DELTA:g}, as if each step drew its batch by Poisson sampling."
    columns = dict(zip(headings, map(list, zip(*lines, strict=True)), strict=True))
    if set(columns["epsilon"]) == {NOTHING}:
        del columns["epsilon"]
        below = ""
    print(Table(above, columns, below).text())


def update_error(victim: Victim, defense: Defense | None, data: ImageData, batch: Batch) -> tuple[float, float]:
    """Norm of the sent update over that of the undefended one of the same model, and the cosine between them."""
    generator = torch.Generator().manual_seed(seed_of("utility", batch.task))
    sent = (client_update(victim, *data.batch(batch.indices), generator=generator, defense=d) for d in (None, defense))
    plain, defended = (torch.cat([g.flatten().double() for g in update.values()]) for update in sent)
    return float(defended.norm() / plain.norm()), float(cosine_similarity(defended, plain, dim=0))


def train_defended(
    victim: Victim, defense: Defense | None, data: ImageData, batches: Sequence[Batch], lr: float, seed: int
) -> Gradient:
    """The weights after one step along the update of every batch in turn; the victim keeps its own."""
    generator = torch.Generator().manual_seed(seed_of("utility", seed))
    moving = deepcopy(victim)
    for batch in batches:
        update = client_update(moving, *data.batch(batch.indices), generator=generator, defense=defense)
        for name, p in moving.parameters.items():
            p.sub_(lr * update[name])  # detached, but the memory is the model's
    return moving.parameters


def accuracy(victim: Victim, theta: Gradient, data: ImageData, indices: Sequence[int]) -> float:
    """Share of these images that are classified right."""
    return sum(classified_right(victim, theta, data, indices)) / len(indices)


def budget(defense: Defense | None) -> Callable[[int, float, float], float] | None:
    """The `epsilon` of a defense that has one; of a chain, that of its last part that sees the images."""
    seeing = [part for part in parts(defense) if type(part).gradient_fn is not Defense.gradient_fn]
    return getattr(seeing[-1], "epsilon", None) if seeing else None
