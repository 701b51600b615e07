"""`python -m benchmark utility`: what a defense costs the client that uses it."""

import math
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from benchmark.device import best_device, reproducible
from benchmark.labels import clusters_of, sharing
from benchmark.run_options import in_words, with_options
from benchmark.scoring.accuracy import classified_right
from benchmark.setting import Setting
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import client_update
from defenses.base import Defense, parts
from leaderboard.labels_board import cell
from leaderboard.options import Options
from leaderboard.table import NOTHING, Table
from victims.batch_norm import batch_norms
from victims.client import evenly_spaced
from victims.data.base import ImageData
from victims.modules import tensor_name
from victims.names import separated
from victims.ranges import above_zero, at_least
from victims.seeds import seed_of
from victims.victim import Gradient, Victim, batch_statistics

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

    The accuracy is that of eval mode, whatever the mode of the training. Batch norm that trained on the statistics of
    batches then has running ones, of train images.

    Args:
        defense: what the client does to its update: none, or name:parameter:...; several with commas between them.
        data: the data set; its train split trains, its test split tests.
        batch: images per update.
        trials: batches for which the update is compared with the undefended one, at the initial weights.
        lr: learning rate of the training by plain SGD, in which every step is one client's update.
        steps: steps of the training.
        seeds: training runs, each on other batches and, where weights are random, from other initial ones.
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
        batches = config(defense=text, batch=batch).make_batches(train, max(seeds * steps, trials))
        for seed in range(seeds):
            of_seed = config(defense=text, seed=seed)
            model = of_seed.make_victim(train).to(best_device())
            if seed == 0:
                config(defense=text, batch=batch).check_defense(model, train, batches[0])
                errors = [update_error(model, client, train, of_trial) for of_trial in batches[:trials]]
            trained = train_defended(model, client, train, batches[seed * steps : (seed + 1) * steps], lr, seed)
            if all(p.isfinite().all() for p in trained.parameters.values()):
                used = in_eval_mode(trained, of_seed, train)
                accuracies.append((str(seed), accuracy(used, trained.parameters, test, tested)))
            bar.update()
        spent = budget(client)
        epsilon = f"{spent(steps, batch / len(train), DELTA):.3g}" if spent else NOTHING
        clusters = clusters_of(batches[:trials])
        names = [clusters[of_trial.task] for of_trial in batches[:trials]]
        norms, cosines = (zip(names, values, strict=True) for values in zip(*errors, strict=True))
        # An open end: trials that are all equal, as without a defense, are no sample and have no interval.
        errors_shown = cell(norms, (0, math.inf)), cell(cosines, (-math.inf, 1))
        diverged = seeds - len(accuracies)
        right = f"{diverged} of {seeds} diverged" if diverged else cell(accuracies, (0, 1))
        lines.append([text, *errors_shown, right, epsilon])
    bar.close()
    headings = ("defense", "norm", "cosine", "accuracy", "epsilon")
    where = in_words(config(), NAMED)
    norms_of = "" if config().victim_mode == "eval" else " (batch norm: statistics of train images)"
    start = "the same" if config().weights_file() else "other initial"
    above = (
        f"{where}. Norm over that of the undefended update, and cosine to it: {trials} batches of {batch} at the "
        f"initial weights, 95 % intervals over them{sharing('they', clusters)}. Accuracy in eval mode{norms_of} on "
        f"the {len(tested)} test images after {steps} steps of SGD with learning rate {lr}, 95 % interval over {seeds} "
        f"trainings, each on other batches from {start} weights."
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
) -> Victim:
    """A copy of the victim after one step along the update of every batch in turn."""
    generator = torch.Generator().manual_seed(seed_of("utility", seed))
    moving = deepcopy(victim)
    for batch in batches:
        update = client_update(moving, *data.batch(batch.indices), generator=generator, defense=defense)
        for name, p in moving.parameters.items():
            p.sub_(lr * update[name])  # detached, but the memory is the model's
    return moving


def in_eval_mode(trained: Victim, config: Setting, data: ImageData) -> Victim:
    """The victim with which test images are classified, by the weights that were trained.

    Layers of batch norm that normalized by the batch have the running statistics of train images under these weights;
    the others keep those with which they were trained.

    Args:
        config: what the victim was made by.
        data: the train images.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has been said of the victim that was trained
        victim = replace(config, victim_mode="eval").make_victim(data).to(best_device())
    layers, buffers = batch_norms(trained.model), dict(victim.model.named_buffers())
    if moved := [name for name in trained.running if layers[name].training]:
        parts = [trained.normalize(images.to(trained.mean)) for images in evenly_spaced(data)]
        with torch.no_grad():
            found = [batch_statistics(trained, images, correction=1) for images in parts]
        for name in found[0].keys() & moved:  # a layer that is not called has none
            mean, variance = torch.stack([of_part[name] for of_part in found]).mean(0)
            buffers[tensor_name(name, "running_mean")].copy_(mean)
            buffers[tensor_name(name, "running_var")].copy_(variance)
    return victim


def accuracy(victim: Victim, theta: Gradient, data: ImageData, indices: Sequence[int]) -> float:
    """Share of these images that are classified right."""
    return sum(classified_right(victim, theta, data, indices)) / len(indices)


def budget(defense: Defense | None) -> Callable[[int, float, float], float] | None:
    """The `epsilon` of a defense that has one; of a chain, that of its last part that sees the images."""
    seeing = [part for part in parts(defense) if type(part).gradient_fn is not Defense.gradient_fn]
    return getattr(seeing[-1], "epsilon", None) if seeing else None
