"""The matching cost of dummy batches for what the server received."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

import torch
from torch import Tensor

from attacks.engine.author import (
    DISTANCE,
    OBJECTIVE,
    PENALTY,
    check_each,
    check_images,
    check_labels,
    check_reached,
    check_used,
)
from attacks.engine.compiled import Function
from attacks.engine.distances import Target
from attacks.engine.gradients import GradientPath, GradientPaths, memory_ran_out
from attacks.engine.stage import Stage, Variables
from attacks.engine.surrogate_model import ALPHA, START, surrogate_model
from victims.errors import InputError, Notice
from victims.observation import Observation, Transform
from victims.rounds import by_round
from victims.victim import Gradient

Distance = Callable[[Gradient, Gradient], Tensor]
"""Dummy and received gradient, every tensor (R, *shape) -> (R,)."""


@dataclass(frozen=True)
class Chunk:
    """n dummy batches that are evaluated at once, and their targets.

    Attributes:
        rows: their places among all dummy batches.
        path: how their gradients are computed.
        targets: the received update of every round, (n, *shape) per parameter, in units of a gradient.
        labels: the given ones, (n, B).
        statistics: the given batch-norm statistics, (n, 2, C), as `bn <layer>`; stages get them with `fixed`.
        transform: the estimate of the defense.
        moved: theta_0 - theta_T as it was received, (n, *shape) each, for surrogate models; else None.
    """

    rows: slice
    path: GradientPath
    targets: Sequence[Target]
    labels: Tensor | None
    statistics: Variables
    transform: Transform
    moved: Gradient | None = None


class Objective:
    """Costs of dummy batches: `population` candidates for every instance, adjacent to each other.

    Chunks of the same tasks share their targets, and all candidates of a task share the memory of its target.

    Args:
        restarts: of each task.
        chunk: how many dummy batches are evaluated, and held in memory, at once; None lets `paths` decide.
        steps: of the stage, in each of which this objective is evaluated once, times the tasks of the whole run.

    Attributes:
        gradients: victim gradients that one dummy batch costs: of every round, client and repeated local step.
        ran: names of the gradient paths that were used, in order.
    """

    def __init__(
        self,
        observations: Sequence[Observation],
        distance: Distance,
        paths: GradientPaths,
        *,
        restarts: int = 1,
        population: int = 1,
        chunk: int | None = None,
        steps: int = 1,
    ) -> None:
        self.observations, self.distance, self.paths = observations, distance, paths
        self.victim, self.population, self.steps = paths.victim, population, steps
        self._of_task = restarts * population
        batch_size, local = observations[0].batch_size, paths.local
        self.shape = (batch_size, *observations[0].image_shape)
        local_steps = sum(map(len, local.schedule(batch_size))) if local else 1
        self.gradients = local_steps * len(by_round(self.victim, self.victim.parameters))
        self.ran: dict[str, None] = {}
        self._received = [o.gradient() for o in observations]
        self._task_of = [task for task in range(len(observations)) for _ in range(self._of_task)]
        self._cut(chunk or paths.at_once(batch_size, population) or len(self._task_of))

    def cost(self, images: Tensor, labels: Tensor, alpha: Tensor | None = None) -> Tensor:
        """Of normalized images (n, B, C, H, W) and classes (n, B) or probabilities (n, B, K): (n,); differentiable.

        Args:
            alpha: (n,) of surrogate models; by default where a search starts.
        """
        given = images, labels, images.new_full((len(images),), START) if alpha is None else alpha
        return torch.cat([self._cost(chunk, *(tensor[chunk.rows] for tensor in given)) for chunk in self.chunks])

    def cost_and_gradients(
        self, stage: Stage, variables: Variables
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Cost (n,), images and labels at `variables`, and the gradient of cost plus penalty in them.

        Of a stage with an objective of its own the cost is this objective, and images and labels are empty.
        """
        cost, x, y, *grads = self._of_chunks(self._cost_and_gradients, stage, variables)
        return cost, x, y, dict(zip(variables, grads, strict=True))

    def values(self, stage: Stage, variables: Variables) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cost (n,), images, labels and cost plus penalty (n,), without gradients."""
        cost, x, y, objective = self._of_chunks(self._values, stage, variables)
        return cost, x, y, objective

    def _cost_and_gradients(self, chunk: Chunk, stage: Stage, names: Sequence[str], *inputs: Tensor) -> list[Tensor]:
        """Cost, images, labels and gradients of a chunk; the inputs are its variables and `fixed`, by these names."""
        v = dict(zip(names, (tensor.detach() for tensor in inputs), strict=True))
        searched = [v[name].requires_grad_() for name in stage.variables]
        *judged, objective = self._evaluate(chunk, stage, v)
        check_reached(stage, judged[0], judged[1], self.distance)
        grads = torch.autograd.grad(objective.sum(), searched, allow_unused=True)
        check_used(stage, dict(zip(stage.variables, grads, strict=True)))
        return [*(tensor.detach() for tensor in judged), *(g.contiguous() for g in grads)]  # as fused Adam reads them

    @torch.no_grad()
    def _values(self, chunk: Chunk, stage: Stage, names: Sequence[str], *inputs: Tensor) -> Sequence[Tensor]:
        return self._evaluate(chunk, stage, dict(zip(names, inputs, strict=True)))

    def _evaluate(self, chunk: Chunk, stage: Stage, v: Variables) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        v, n = {**v, **chunk.statistics}, chunk.rows.stop - chunk.rows.start
        if stage.objective:
            value = stage.objective(v)
            check_each(OBJECTIVE, f"objective of the stage '{stage.name}'", value, n, stage.objective)
            none = value.new_empty(len(value), 0)
            return value, none, none, value
        x = stage.decode(v)
        check_images(stage, x, (n, *self.shape))
        y = stage.labels(v) if stage.labels else chunk.labels
        if stage.labels:
            check_labels(stage, y, (n, self.shape[0]))
        assert y is not None, "a stage without labels is refused where there are none"
        cost = self._cost(chunk, x, y, v.get(ALPHA))
        if not stage.penalty:
            return cost, x, y, cost
        penalty = stage.penalty(v, x)
        check_each(PENALTY, f"penalty of the stage '{stage.name}'", penalty, n, stage.penalty)
        return cost, x, y, cost + penalty

    def _cost(self, chunk: Chunk, images: Tensor, labels: Tensor, alpha: Tensor | None) -> Tensor:
        gradient = chunk.path.gradient
        if chunk.moved is not None:
            assert alpha is not None, "every stage has it then"
            gradient = partial(gradient, theta=surrogate_model(self.victim.parameters, chunk.moved, alpha))
        dummy = by_round(self.victim, chunk.transform(gradient(images, labels)))
        costs = list(map(self.distance, dummy, chunk.targets))
        for of_round in costs:
            check_each(DISTANCE, "distance", of_round, len(images), self.distance)
        cost = reduce(torch.add, costs)
        return cost.to(images.dtype)  # single layers may have another type than the images

    def _of_chunks(self, function: Function, stage: Stage, variables: Variables) -> list[Tensor]:
        """The concatenated results of a function of every chunk; chunks are halved whenever memory runs out.

        Args:
            function: of a chunk, the stage, names, and the tensors of these names.

        Raises:
            InputError: memory does not suffice for a single batch.
        """
        while True:
            try:
                parts = [self._of_chunk(k, function, stage, variables) for k in range(len(self.chunks))]
            except (RuntimeError, MemoryError) as error:
                if not memory_ran_out(error):
                    raise
                if self.size == 1:
                    raise InputError("one dummy batch is too large for the memory; lower --batch or --size.") from None
                smaller = self.size // 2
                warnings.warn(f"memory ran out; continuing with chunks of {smaller}.", Notice, stacklevel=2)
            else:
                return list(parts[0]) if len(parts) == 1 else [torch.cat(part) for part in zip(*parts, strict=True)]
            self._cut(smaller)  # outside of the handler, where no traceback holds the tensors of the failed step

    def _of_chunk(self, k: int, function: Function, stage: Stage, variables: Variables) -> Sequence[Tensor]:
        chunk = self.chunks[k]
        inputs = self._inputs(chunk, stage, variables)
        tensors = list(inputs.values())
        if k == len(self._functions):
            name, prepared = chunk.path.prepare(partial(function, chunk, stage, list(inputs)), tensors)
            self._functions.append(prepared)
            self.ran[name] = None
        return self._functions[k](*tensors)

    def _inputs(self, chunk: Chunk, stage: Stage, variables: Variables) -> dict[str, Tensor]:
        """A chunk's part of the variables and of `fixed`."""
        rows = chunk.rows
        instances: slice | Tensor = rows
        if self.population > 1:
            instances = torch.arange(rows.start, rows.stop, device=self.victim.mean.device) // self.population
        fixed = {name: tensor[instances] for name, tensor in stage.fixed.items()}
        return {**{name: variable[rows] for name, variable in variables.items()}, **fixed}

    def _cut(self, size: int) -> None:
        """Into chunks of `size` dummy batches."""
        n = len(self._task_of)
        self.size = size = min(size, n)
        self.chunks: list[Chunk] = []
        self._functions: list[Function] = []  # of the chunks, since their first evaluation
        known: dict[tuple[int, ...], Chunk] = {}
        evaluations = self.steps * -(-self._of_task // size)  # the same however tasks are batched
        for start in range(0, n, size):
            tasks = tuple(self._task_of[start : start + size])
            rows = slice(start, start + len(tasks))
            if tasks not in known:
                known[tasks] = self._chunk(rows, tasks, self.paths.choose(len(tasks), evaluations))
            self.chunks.append(replace(known[tasks], rows=rows))

    def _chunk(self, rows: slice, tasks: tuple[int, ...], path: GradientPath) -> Chunk:
        def gather(tensors: Sequence[Tensor]) -> Tensor:
            if len(set(tasks)) == 1:
                return tensors[tasks[0]].expand(len(tasks), *tensors[0].shape)
            return torch.stack([tensors[task] for task in tasks])

        first = self.observations[0].knowledge
        labels = [o.knowledge.labels for o in self.observations if o.knowledge.labels is not None]
        received = {name: gather([sent[name] for sent in self._received]) for name in self._received[0]}
        given = [o.knowledge.statistics or {} for o in self.observations]
        return Chunk(
            rows,
            path,
            [Target(received) for received in by_round(self.victim, received)],
            gather(labels) if labels else None,
            {f"bn {layer}": gather([statistics[layer] for statistics in given]) for layer in given[0]},
            first.estimate(received, self.victim) if first.estimate else lambda dummy: dummy,
            {name: gather([o.update[name] for o in self.observations]) for name in received}
            if self.paths.own_weights
            else None,
        )
