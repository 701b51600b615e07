"""The state of one run of an attack: where each instance is, the best so far, the current stage, the budget spent.

An *instance* is one restart of one task. Instances are the leading dimension R of every variable, image batch and cost;
those of one task are adjacent.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attacks.engine.author import check_ended, check_projected, check_stage
from attacks.engine.distances import scale_of
from attacks.engine.gradients import GradientPaths
from attacks.engine.inner_products import for_each
from attacks.engine.objective import Objective
from attacks.engine.stage import Reconstruction, Stage, Variables
from attacks.engine.surrogate_model import ALPHA, START, with_alpha
from victims.observation import Observation

if TYPE_CHECKING:
    from attacks.base import Attack


class Best:
    """The least cost of every instance so far, (R,), and copies of the tensors it was measured at, (R, ...) each."""

    def __init__(self, cost: Tensor, tensors: Variables) -> None:
        self.cost = torch.full_like(cost, torch.inf)
        self.tensors = {name: tensor.clone() for name, tensor in tensors.items()}

    def update(self, cost: Tensor, tensors: Variables) -> None:
        better = cost < self.cost  # false where the cost is NaN
        torch.where(better, cost, self.cost, out=self.cost)
        for name, kept in self.tensors.items():
            torch.where(for_each(better, kept), tensors[name], kept, out=kept)

    def forget(self) -> None:
        """The next update replaces everything that has a finite cost."""
        self.cost.fill_(torch.inf)

    def winners(self, restarts: int) -> Tensor:
        """(T,) the index of every task's instance of least cost."""
        best = self.cost.unflatten(0, (-1, restarts)).argmin(1)
        return best + restarts * torch.arange(len(best), device=best.device)

    def select(self, instances: Tensor) -> None:
        self.cost = self.cost[instances]
        self.tensors = {name: tensor[instances] for name, tensor in self.tensors.items()}


class Session:
    """One run of an attack on tasks of equal shape on one victim; `start` enters the first stage.

    Attributes:
        observations: one per task, with labels as the attack uses them.
        restarts: per task, as far as they are still searched.
        stage, step, variables: the current stage, the steps taken in it, and the current variables, (R, ...) each.
        costs: of every step the stage's name and the matching costs, (T, restarts).
        gradient_evaluations: victim gradients computed so far, per task.
        alpha: (R,) of surrogate models, which the next stage starts from; None if there are none.
    """

    stage: Stage
    step: int
    variables: dict[str, Tensor]

    def __init__(self, attack: "Attack", observations: Sequence[Observation], paths: GradientPaths) -> None:
        self.attack, self.observations, self.paths = attack, observations, paths
        self.restarts = attack.restarts
        self.costs: list[tuple[str, Tensor]] = []
        self.gradient_evaluations = 0
        self._ran: dict[str, None] = {}  # names of gradient paths, in order
        first = observations[0]
        images = paths.victim.mean.new_zeros(self.instances, first.batch_size, *first.image_shape)
        self.alpha = images.new_full((self.instances,), START) if paths.own_weights else None
        self._best = Best(images.new_empty(self.instances), {"images": images})  # the mean color until a cost is finite
        scale = torch.cat([scale_of({name: g[None] for name, g in o.update.items()}) for o in observations])
        self._matchable = ((scale > 0) & scale.isfinite()).repeat_interleave(self.restarts)

    @property
    def instances(self) -> int:
        """R: tasks times the restarts that are still searched."""
        return len(self.observations) * self.restarts

    @property
    def best(self) -> Variables:
        """The `images` of least cost of every instance so far, (R, B, C, H, W), and their `labels`."""
        return self._best.tensors

    def start(self) -> None:
        self._ahead = list(self.attack.plan)
        self._search = self.attack.stages()
        self._go_on(None)

    def advance(self) -> None:
        """One step of the current stage for all instances: judge the current variables, then move them.

        A stage of S steps costs S victim gradients, times its population; the result of its last step is not judged.
        """
        stage, steps = self.stage, self.attack.plan[self.stage.name]
        for group in self._optimizer.param_groups:
            group["lr"] = group.get("initial_lr", stage.lr) * stage.schedule(self.step, steps)
        if stage.population > 1:
            self._gradient_free_step(stage)
        else:
            self._gradient_step(stage)
        if stage.project:
            before = dict(self.variables)
            with torch.no_grad():
                returned = stage.project(self.variables, self.step + 1)
            if self.step == 0:
                check_projected(stage, before, self.variables, returned)
        self.step += 1
        if self.step == steps:
            self._leave()

    def skip(self) -> int:
        """Leave the current stage without a step: the victim gradients per task that it would have cost."""
        spared = self.attack.plan[self.stage.name] * self._evaluations_per_step
        self._leave()
        return spared

    @property
    def ended(self) -> bool:
        """Whether there is no stage left."""
        return not self.variables

    def result(self) -> Reconstruction:
        """The best image batch of every task over its restarts and all stages, with its cost."""
        best = self.winners()
        images = self._best.tensors["images"][best]
        return Reconstruction(
            images=images,
            pixels=self.attack.victim.denormalize(images).clamp(0, 1),
            labels=self._best.tensors["labels"][best],
            cost=self._best.cost[best],
            curve=self.curve(),
            gradient_evaluations=self.gradient_evaluations,
            gradient_path=", ".join(self._ran),
        )

    def curve(self) -> list[tuple[str, Tensor]]:
        """As `Reconstruction` has it, by a few operations for all steps of a stage."""
        stages = groupby(self.costs, key=itemgetter(0))
        return [(stage, cost) for stage, steps in stages for cost in least(torch.stack([costs for _, costs in steps]))]

    def winners(self) -> Tensor:
        """(T,) the index of every task's best instance."""
        return self._best.winners(self.restarts)

    def objective(self, population: int = 1, steps: int = 1) -> Objective:
        """For the instances of this session."""
        return Objective(
            self.observations,
            self.attack.distance,
            self.paths,
            restarts=self.restarts,
            population=population,
            chunk=self.attack.chunk,
            steps=steps * max(self.attack.tasks, len(self.observations)),
        )

    @property
    def _evaluations_per_step(self) -> int:
        """Victim gradients per task that a step of the current stage costs."""
        return 0 if self.stage.objective else self.restarts * self.stage.population * self._objective.gradients

    def _enter(self, stage: Stage) -> None:
        self._ahead = self._ahead[1:]
        if self.alpha is not None:
            stage = with_alpha(stage, self.alpha)
        self.stage, self.step = stage, 0
        self.variables = {name: v.detach().clone().contiguous() for name, v in stage.variables.items()}
        kept = self.variables if self._ahead else {}  # nothing continues from the best of the last stage
        self._best_of_stage = Best(self._best.cost, kept)
        self._optimizer: Any = stage.optimizer(list(self.variables.values()), lr=stage.lr)
        self._objective = self.objective(stage.population, self.attack.plan[stage.name])

    def _gradient_step(self, stage: Stage) -> None:
        *judged, grads = self._objective.cost_and_gradients(stage, self.variables)
        self._judge(*judged)
        for name, variable in self.variables.items():
            variable.grad = grads[name].sign() if stage.signed else grads[name]
        self._optimizer.step()

    def _gradient_free_step(self, stage: Stage) -> None:
        """The optimizer asks for candidates (R, P, ...) and is told their values; variables become the best ones."""
        candidates = dict(zip(self.variables, self._optimizer.ask(), strict=True))
        *judged, values = self._objective.values(stage, {name: c.flatten(0, 1) for name, c in candidates.items()})
        cost, *rest = (tensor.unflatten(0, (self.instances, stage.population)) for tensor in judged)
        each, best = torch.arange(self.instances, device=cost.device), cost.nan_to_num(torch.inf).argmin(1)
        for name, variable in self.variables.items():
            variable.copy_(candidates[name][each, best])
        self._judge(cost[each, best], *(tensor[each, best] for tensor in rest))
        self._optimizer.tell(values.unflatten(0, (self.instances, stage.population)))

    def _judge(self, cost: Tensor, images: Tensor, labels: Tensor) -> None:
        """Keep every instance's images and variables of least cost, as they were when the cost was measured."""
        cost = cost.where(self._matchable, torch.inf)
        self.costs.append((self.stage.name, cost.unflatten(0, (-1, self.restarts))))
        if self.stage.latest:
            self._best_of_stage.forget()
        self._best_of_stage.update(cost, self.variables)
        self.gradient_evaluations += self._evaluations_per_step
        if self.stage.objective:  # of another kind than the costs that choose the images
            return
        self._ran |= self._objective.ran
        if "labels" not in self._best.tensors:
            self._best.tensors["labels"] = labels.clone()
        if self.stage.latest:
            self._best.forget()
        self._best.update(cost, {"images": images, "labels": labels})

    def _leave(self) -> None:
        """Send the stage's best variables, and its `fixed`, to the search; enter the stage that it yields next."""
        found = {**self.stage.fixed, **self.variables, **self._best_of_stage.tensors}
        if self.stage.keep == "best":
            best = self._best_of_stage.winners(self.restarts)
            found = {name: tensor[best] for name, tensor in found.items()}
            self._best.select(self.winners())
            self._matchable = self._matchable[best]
            self.restarts = 1
        if self.alpha is not None:
            self.alpha = found.pop(ALPHA)
        self._go_on(found)

    def _go_on(self, found: dict[str, Tensor] | None) -> None:
        """To the stage that the search yields next; None at the start."""
        try:
            stage = self._search.send(found)  # type: ignore[arg-type]
        except StopIteration:
            check_ended(self.attack, self._ahead)
            del self._objective, self._optimizer, self._best_of_stage  # their memory is for the next session
            self.variables = {}
        else:
            check_stage(self.attack, stage, self._search, self._ahead, self.instances)
            self._enter(stage)


def least(costs: Tensor) -> Tensor:
    """Over restarts; infinite if all are NaN or infinite: (..., T, restarts) -> (..., T)."""
    return costs.nan_to_num(torch.inf, torch.inf).amin(-1)
