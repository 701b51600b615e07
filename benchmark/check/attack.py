"""The contracts of every attack, on small tasks."""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from torch import Tensor

from attacks.base import Attack
from attacks.engine import gradients
from attacks.engine.factored_gradients import Layers
from attacks.engine.gradients import victim_gradients
from attacks.engine.objective import Objective
from attacks.engine.stage import Stage
from benchmark.check import attack_options as options
from benchmark.check import attack_results as results
from benchmark.check.attack_case import STEPS, Case, Contract
from benchmark.check.fails import require
from benchmark.check.reach import holds, reachable
from benchmark.check.small import BATCH, OTHER, defended_task
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import Client, capture_task
from benchmark.tasks.module import GradientDataModule
from benchmark.tracks.budget import evaluations
from priors.base import Generator
from victims.data.photos import Photos


def the_engine_runs_it(case: Case) -> None:
    """On two tasks with two restarts; where it needs no labels, also without them."""
    for labels in (True,) if "labels" in case.method.needs else (True, False):
        tasks = [case.capture(give_labels=labels), case.capture(OTHER, task="u", give_labels=labels)]
        result = case.make(restarts=2).run([task.observation for task in tasks])
        wanted = (2, *tasks[0].images.shape)
        require(
            result.images.shape == wanted, f"its images are {tuple(result.images.shape)}, not {wanted}", *case.where
        )


def what_it_costs_is_known_before_the_first_step(case: Case) -> None:
    observation = case.capture().observation
    for restarts in (1, 2):
        attack = case.make(restarts=restarts)
        known, spent = evaluations(attack, observation), attack.run([observation]).gradient_evaluations
        require(spent == known, f"{spent} victim gradients were spent, and {known} foreseen", *case.where)


def the_budget_counts_every_victim_gradient(case: Case) -> None:
    one = case.capture().observation
    observations = [one, case.capture(OTHER, task="u", victim=one.victim).observation]
    attack = case.make(restarts=2, chunk=3)
    attack.prepare(one)  # its trial of every gradient path is not part of the attack
    counted: list[int] = []

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def count(of: Any, images: Tensor, labels: Tensor, **how: Any) -> Any:
            counted.append(len(images))
            return real(of, images, labels, **how)

        return count

    with (
        patch.object(gradients, "victim_gradients", counting(victim_gradients)),
        patch.object(Layers, "gradient", counting(Layers.gradient)),
    ):
        result = attack.run(observations)
    claimed, spent = result.gradient_evaluations * len(observations), sum(counted)
    require(claimed == spent, f"{claimed} victim gradients are counted, and {spent} were computed", *case.where)
    steps = sum(case.make().plan.values())
    require(len(result.curve) == steps, f"there are {len(result.curve)} costs of {steps} steps", *case.where)


def searches_a_generator(method: type[Attack]) -> bool:
    return "prior" in method.needs and issubclass(method.takes, Generator)


def a_generator_of_larger_images_is_searched_at_any_size(case: Case) -> None:
    result = case.make().run([case.capture(size=24).observation])  # the prior makes 32 px
    wanted = (1, case.method.made_for.get("batch", 3), 3, 24, 24)
    require(result.images.shape == wanted, f"images are {tuple(result.images.shape)}, not {wanted}", *case.where)
    require(result.cost.isfinite().all(), "the cost is not finite", *case.where)


class Keep(pl.Callback):
    """Runs a check while everything is alive, and keeps nothing."""

    def __init__(self, check: Callable[[pl.Trainer, pl.LightningModule], None]) -> None:
        self.check = check

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.check(trainer, pl_module)


def no_private_image_is_reachable(case: Case) -> None:
    method = case.method
    data, victim = Photos(split="tune"), case.capture().observation.victim
    batch, steps = Batch("t", BATCH[: method.made_for.get("batch")]), sum(case.make().plan.values())
    client = Client(bn="exact" if victim.running and "bn" in method.uses else "none")
    # A closed form does reconstruct the image.
    task = capture_task(victim, data, batch, client, "shuffled_update" if method.analytic else "none")
    module = GradientDataModule(lambda _: [task.observation], groups=1, steps=steps)
    verdicts: list[bool] = []

    def check(trainer: pl.Trainer, attack: Any) -> None:
        verdicts.append(holds(reachable(attack, task.observation), task.images, victim))
        attack.leak = [{"deep": (lambda images=task.images[:1] * 1: images)}]  # the walk must find this
        verdicts.append(holds(reachable(attack, task.observation), task.images, victim))

    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[Keep(check)], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(case.make(), module)
    require(verdicts == [False, True], "a private image was found, or the walk did not see one", *case.where)


def steps_change_the_variables_under_a_defense(case: Case, defense: str) -> None:
    """With all numbers finite; of a method that has steps."""
    seen: list[tuple[dict[str, Tensor], tuple[Any, ...]]] = []

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def watch(self: Objective, stage: Stage, variables: dict[str, Tensor]) -> Any:
            found = real(self, stage, variables)
            seen.append(({n: v.detach().clone() for n, v in variables.items()}, found))
            return found

        return watch

    made_for = case.method.made_for
    attack = case.make(steps=8 * STEPS)
    task = defended_task(defense, BATCH[: made_for.get("batch")], victim=made_for.get("victim", "lenet"))
    with (
        patch.object(Objective, "cost_and_gradients", watched(Objective.cost_and_gradients)),
        patch.object(Objective, "values", watched(Objective.values)),
    ):
        attack.begin([task.observation])
        while len(seen) < 2 or seen[-2][0].keys() != seen[-1][0].keys():  # a first stage may have a single step
            attack.advance()
    (before, _), (after, _) = seen[-2:]
    still = [name for name in before if torch.equal(before[name], after[name])]
    require(not still, f"a step under {defense} leaves {', '.join(still)} as it was", *case.where)
    for _, (cost, *_, last) in seen:
        tensors = [cost, *(last.values() if isinstance(last, dict) else [last])]
        require(all(t.isfinite().all() for t in tensors), f"a number under {defense} is not finite", *case.where)


CONTRACTS: list[Contract] = [
    the_engine_runs_it,
    options.every_common_option_reaches_it,
    options.presets_and_defaults_fit_the_constructor,
    options.its_search_space_has_options_of_its_own_around_their_defaults,
    options.every_option_of_its_search_space_changes_the_search,
    options.an_observation_that_does_not_fit_is_refused,
    what_it_costs_is_known_before_the_first_step,
    the_budget_counts_every_victim_gradient,
    results.the_cost_at_the_truth_is_zero_to_rounding,
    *(partial(results.the_derivative_of_the_cost_is_that_of_differences, path=path) for path in results.PATHS),
    results.looped_chunked_and_vectorized_restarts_agree,
    results.batched_tasks_do_not_influence_each_other,
    results.restarts_are_independent,
    results.the_returned_cost_is_that_of_the_returned_images,
    results.the_same_seed_gives_the_same_result_to_the_last_bit,
    results.cycling_the_batch_changes_no_score,
    *(partial(results.an_update_that_cannot_be_matched_diverges, factor=factor) for factor in (0.0, torch.nan)),
    *(partial(results.tiny_and_huge_updates_do_not_diverge, exponent=power) for power in (-83, 83)),
    no_private_image_is_reachable,
]
"""Of every attack. That of a generator is of attacks that search one; under defenses, see `benchmark.check.command`."""
