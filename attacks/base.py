"""The base of every attack: stages, restarts, judgment by the attacker's own cost, budget.

A method is a `LightningModule` that says, in `search`, which variables move and how they become images. The
base does the rest: `advance` takes one step of the current stage, all runs together. A *run* is one
restart of one task; runs are the leading dimension R of every variable, image batch and cost. Runs of one
task lie next to each other.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from attacks.engine.compiled import Compile, Compiler
from attacks.engine.distances import cosine
from attacks.engine.factored_gradients import find_layers
from attacks.engine.gradients import vectorizes
from attacks.engine.helpers import Toolbox
from attacks.engine.inner_products import for_each
from attacks.engine.objective import Match, Objective
from attacks.engine.requirements import Admission
from attacks.engine.stage import Reconstruction, Search, Stage, share_out
from attacks.labels import find
from priors.base import Prior
from victims.errors import InputError
from victims.observation import Observation
from victims.victim import Gradient

INNER = 5  # steps in one of Lightning's, whose own work is up to an eighth of a step on small nets


class Common(TypedDict, total=False):
    """Options that every attack takes."""

    prior: Prior | None
    restarts: int
    steps: int | None
    seed: int
    chunk: int | None
    label_method: str | None
    match: Match
    compile: Compile


class Attack(Admission, Toolbox, LightningModule):
    """Gradient matching, to be subclassed by methods.

    Class attributes, besides those of `Admission`:
        name: on the command line; a class of the user's own that declares none has its dotted path.
        presets: named sets of constructor options, such as `paper` and `code`.
    """

    name: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(
        self,
        plan: Mapping[str, int],
        *,
        prior: Prior | None = None,
        restarts: int = 2,
        steps: int | None = None,
        seed: int = 0,
        chunk: int | None = None,
        label_method: str | None = None,
        match: Match = "aga",
        compile: Compile = "auto",
    ) -> None:
        """
        Args:
            plan: steps of every stage, in order, as the method has it.
            prior: the generator, for attacks that need one.
            restarts: independent starts per task.
            steps: in total; the plan's stages keep their proportions.
            seed: of the starting points.
            chunk: how many runs are evaluated at once, see `Objective`.
            label_method: of `attacks.labels`, by which an attack that needs labels reads them from the update.
            match: how an update after local training is matched, see `attacks.engine.objective`.
            compile: which stages' evaluations are compiled, see `attacks.engine.compiled`.

        Raises:
            InputError: a count below 1, fewer steps than stages, steps for a closed form, no prior where one is
                needed, or a label method that is unknown or that an attack with its own labels has no use for.
        """
        super().__init__()
        self.automatic_optimization = False
        for name, count in {"restarts": restarts, "steps": steps, "chunk": chunk, **plan}.items():
            if count is not None and count < 1:
                raise InputError(f"{name} is {count}; give 1 or more.")
        if self.analytic and steps is not None:
            raise InputError(f"{self.name} is solved in closed form and has no steps to choose; leave --steps out.")
        if "prior" in self.needs and prior is None:
            raise InputError(f"{self.name} searches a generator; give one with --prior.")
        if label_method is not None and find(label_method) and "labels" not in self.needs:
            raise InputError(f"{self.name} finds labels by itself; leave --labels given.")
        self.label_method, self.match, self.compiling = label_method, match, compile
        self.plan = dict(plan) if steps is None else share_out(plan, steps)
        self.prior, self.restarts, self.seed, self.chunk = prior, restarts, seed, chunk

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = f"{cls.__module__}.{cls.__name__}"

    def search(self) -> Search:
        """Yield the stages in order; each `yield` returns its stage's best variables and what was fixed, (R, ...)."""
        raise NotImplementedError

    def distance(self, dummy: Gradient, received: Gradient) -> Tensor:
        """The matching cost, (R,); by default one cosine over all tensors."""
        return cosine(dummy, received)

    def begin(self, observations: Sequence[Observation]) -> None:
        """Take up tasks of equal shape on one victim and make ready for the first step.

        Raises:
            InputError: as `check` does.
        """
        self.observations = [self.admit(observation) for observation in observations]
        if getattr(self, "victim", None) is not observations[0].victim:
            self.victim, known = observations[0].victim, observations[0].knowledge
            repeated = known.local if self.match == "fa" else None
            case = self.victim, observations[0].image_shape, self.batch_size
            self.layers = None if repeated else find_layers(*case)
            by_func = self.layers is None or bool(known.statistics)  # gradients, or the statistics alone
            self.vectorized = by_func and vectorizes(*case, repeated)
            weights = [*self.victim.model.parameters(), *self.victim.model.buffers()]
            self.compiler = Compiler(self.compiling, weights + (list(self.prior.parameters()) if self.prior else []))
        self.costs: list[tuple[str, Tensor]] = []  # of every step, (T, restarts)
        self.gradient_evaluations = 0
        self._alive = self.restarts
        shape = (self.runs, self.batch_size, *observations[0].image_shape)
        self._best_images = self.victim.mean.new_zeros(shape)  # the mean color, until there is better
        self._best_labels: Tensor | None = None
        norm2 = torch.stack([sum(g.square().sum() for g in o.update.values()) for o in observations])
        self._matchable = self.for_runs((norm2 > 0) & norm2.isfinite())
        self._best_cost = self._best_images.new_full((self.runs,), torch.inf)
        self._ahead = list(self.plan)
        self._search = self.search()
        self._enter(next(self._search))

    def advance(self) -> None:
        """One step of the current stage for all runs: judge where they are, then move.

        A stage of S steps costs S victim gradients, times its population; where its last step leads is not judged.
        """
        stage, step, steps = self._stage, self._step, self.plan[self._stage.name]
        for group in self._optimizer.param_groups:
            group["lr"] = stage.lr * stage.schedule(step, steps)
        if stage.population > 1:
            self._move_by_values(stage)
        else:
            self._move_by_gradients(stage)
        if stage.project:
            with torch.no_grad():
                stage.project(self._variables, step + 1)
        self._step += 1
        if self._step == steps:
            self._leave()

    def result(self) -> Reconstruction:
        """The best image batch of every task over its restarts and all stages, with its own cost."""
        best = self._best_runs(self._best_cost)
        return Reconstruction(
            self._best_images[best],
            self._best_labels[best],
            self._best_cost[best],
            [(stage, least(costs)) for stage, costs in self.costs],
            self.gradient_evaluations,
        )

    def cost(self, images: Tensor, labels: Tensor) -> Tensor:
        """The matching cost for the tasks taken up, (R,); differentiable.

        Args:
            images: (R, B, C, H, W), normalized.
            labels: classes (R, B) or probabilities (R, B, K).
        """
        return self._matching(1, 1).cost(images, labels)

    def run(self, observations: Sequence[Observation]) -> Reconstruction:
        """The whole attack without a Trainer."""
        self.begin(observations)
        for _ in range(sum(self.plan.values())):
            self.advance()
        return self.result()

    def training_step(self, observations: Sequence[Observation], batch_idx: int) -> None:
        """Lightning's hook: `INNER` optimization steps; the first of an epoch takes up its tasks."""
        if batch_idx == 0:
            self.begin(observations)
        done = batch_idx * INNER
        for _ in range(min(INNER, sum(self.plan.values()) - done)):
            self.advance()

    def configure_optimizers(self) -> None:
        """Each stage makes its own: what is optimized is no parameter of this module."""

    def _enter(self, stage: Stage) -> None:
        if self._ahead[:1] != [stage.name]:
            raise ValueError(f"{self.name} yields the stage '{stage.name}', its plan has {self._ahead} ahead")
        self._ahead = self._ahead[1:]
        self._stage, self._step = stage, 0
        self._variables = {name: v.detach().clone().contiguous() for name, v in stage.variables.items()}
        kept = self._variables if self._ahead else {}  # after the last stage nothing goes on from the best
        self._best_variables = {name: v.clone() for name, v in kept.items()}
        self._stage_cost = self._best_cost.new_full((self.runs,), torch.inf)
        self._optimizer = stage.optimizer(list(self._variables.values()), lr=stage.lr)
        self._objective = self._matching(stage.population, self.plan[stage.name])

    def _matching(self, population: int, steps: int) -> Objective:
        return Objective(
            self.observations,
            self.distance,
            runs=self._alive,
            population=population,
            chunk=self.chunk,
            vectorized=self.vectorized,
            layers=self.layers,
            match=self.match,
            compiler=self.compiler,
            steps=steps,
        )

    def _move_by_gradients(self, stage: Stage) -> None:
        *judged, grads = self._objective.cost_and_gradients(stage, self._variables)
        self._judge(*judged)
        for name, variable in self._variables.items():
            variable.grad = grads[name].sign() if stage.signed else grads[name]
        self._optimizer.step()

    def _move_by_values(self, stage: Stage) -> None:
        """The optimizer asks for candidates (R, P, ...) and is told their values; the best of a run stands for it."""
        candidates = dict(zip(self._variables, self._optimizer.ask(), strict=True))
        *judged, values = self._objective.values(stage, {name: c.flatten(0, 1) for name, c in candidates.items()})
        cost, *rest = (tensor.unflatten(0, (self.runs, stage.population)) for tensor in judged)
        each, best = torch.arange(self.runs, device=cost.device), cost.nan_to_num(torch.inf).argmin(1)
        for name, variable in self._variables.items():
            variable.copy_(candidates[name][each, best])
        self._judge(cost[each, best], *(tensor[each, best] for tensor in rest))
        self._optimizer.tell(values.unflatten(0, (self.runs, stage.population)))

    def _judge(self, cost: Tensor, images: Tensor, labels: Tensor) -> None:
        """Keep every run's image and variables of least cost, as they were when the cost was measured."""
        cost = cost.where(self._matchable, torch.inf)
        self.costs.append((self._stage.name, cost.unflatten(0, (-1, self._alive))))
        self.gradient_evaluations += self._alive * self._stage.population * self._objective.gradients
        if self._best_labels is None:
            self._best_labels = labels.clone()
        if self._stage.latest:
            self._best_cost.fill_(torch.inf)
            self._stage_cost.fill_(torch.inf)
        better = cost < self._best_cost  # false where the cost is not a number
        for kept, new in ((self._best_images, images), (self._best_labels, labels), (self._best_cost, cost)):
            take(kept, new, better)
        if self._best_variables:
            better = cost < self._stage_cost
            take(self._stage_cost, cost, better)
            for name, kept in self._best_variables.items():
                take(kept, self._variables[name], better)

    def _leave(self) -> None:
        """Hand the stage's best variables, and what was fixed with them, to `search`; enter what it yields next."""
        found = {**self._stage.fixed, **self._variables, **self._best_variables}
        if self._stage.keep == "best":
            best, best_ever = self._best_runs(self._stage_cost), self._best_runs(self._best_cost)
            self._alive = 1
            found = {name: tensor[best] for name, tensor in found.items()}
            self._best_images, self._best_cost = self._best_images[best_ever], self._best_cost[best_ever]
            self._best_labels = self._best_labels[best_ever]
            self._matchable = self._matchable[best]
        try:
            stage = self._search.send(found)
        except StopIteration:
            if self._ahead:
                raise ValueError(f"{self.name} plans the stages {self._ahead}, but its search ended") from None
            self._variables, self._best_variables = {}, {}
        else:
            self._enter(stage)

    def _best_runs(self, cost: Tensor) -> Tensor:
        """(T,) index of every task's run of least cost."""
        best = cost.unflatten(0, (-1, self._alive)).argmin(1)
        return best + self._alive * torch.arange(len(best), device=best.device)


def take(kept: Tensor, new: Tensor, which: Tensor) -> None:
    """Replace, in place, the tensors of some runs: (R, ...) twice, (R,)."""
    torch.where(for_each(which, kept), new, kept, out=kept)


def least(costs: Tensor) -> Tensor:
    """Over restarts; infinite where none is a number: (T, restarts) -> (T,)."""
    return costs.nan_to_num(torch.inf).amin(1)
