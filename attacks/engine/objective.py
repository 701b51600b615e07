"""The matching cost of dummy batches against what the server received."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from attacks.engine.compiled import Compiler, Function
from attacks.engine.distances import Target
from attacks.engine.factored_gradients import Layers
from attacks.engine.gradients import victim_gradients
from attacks.engine.stage import Stage, Variables
from victims.errors import InputError, Notice
from victims.observation import Observation, Transform
from victims.rounds import by_round
from victims.victim import Gradient

Match = Literal["aga", "fa"]
"""How an update after local training is matched.

- `aga`: as if the mean gradient of its steps were one gradient of the whole batch at theta_0 (average gradient
  approximation; IGIMS, eqs. 12 and 13). It costs as much as FedSGD, however the clients trained.
- `fa`: by the mean gradient of the same training on the dummy batch, differentiable through all of its steps
  (Geiping et al., 2020). Clients and mini-batches are cut from the dummy batch in its order. Where labels are given
  that is their sorted order, and not the clients', which the attacker does not know.
"""

CPU_IMAGES = 4  # measured: beyond, grouped convolutions of many runs are slower than the runs one by one
CPU_FACTORED = 16  # measured: the victim's convolutions are those of one batch then, and more do not fit into caches
CPU_CANDIDATES = 25  # without gradients, for which nothing is kept


@dataclass(frozen=True)
class Chunk:
    """Dummy batches that are evaluated at once, n of them, and what they are matched against.

    Attributes:
        rows: their places among all.
        targets: of every round what was received, (n, *shape) per parameter, in units of a gradient.
        labels: those given, (n, B).
        statistics: the batch-norm statistics given, (n, 2, C), as `bn <layer>`; handed to stages with what is fixed.
    """

    rows: slice
    targets: Sequence[Target]
    labels: Tensor | None
    statistics: Variables
    transform: Transform


class Objective:
    """Costs of dummy batches: for every run `population` candidates, which lie next to each other.

    Chunks of the same tasks share what they are matched against, and the candidates of a task its memory.

    Args:
        runs: of each task.
        chunk: how many batches are evaluated at once, and held in memory; None is all of them on a GPU, and on a CPU
            as many as make up `CPU_IMAGES` images, `CPU_FACTORED` or `CPU_CANDIDATES`.
        layers: the victim's, where its gradient can be held as factors and no training is repeated.
        match: see `Match`; without local training there is nothing to choose.
        compiler: of evaluations, which are those of one stage then, where its steps repay it.
        steps: of that stage.

    Attributes:
        gradients: victim gradients that one dummy batch costs: of every round, client and local step that is repeated.
    """

    def __init__(
        self,
        observations: Sequence[Observation],
        distance: Callable[[Gradient, Gradient], Tensor],
        *,
        runs: int,
        population: int,
        chunk: int | None,
        vectorized: bool,
        layers: Layers | None = None,
        match: Match = "aga",
        compiler: Compiler | None = None,
        steps: int = 1,
    ) -> None:
        self.observations, self.distance, self.vectorized, self.layers = observations, distance, vectorized, layers
        self.victim, self.population = observations[0].victim, population
        local = observations[0].knowledge.local
        self.local = local if match == "fa" else None
        local_steps = sum(map(len, self.local.schedule(observations[0].batch_size))) if self.local else 1
        self.gradients = local_steps * len(by_round(self.victim, self.victim.parameters))
        task_of = [task for task in range(len(observations)) for _ in range(runs * population)]
        on_cpu = self.victim.mean.device.type == "cpu"
        images = CPU_IMAGES if not layers else CPU_FACTORED if population == 1 else CPU_CANDIDATES
        size = chunk or (max(1, images // observations[0].batch_size) if on_cpu else len(task_of))
        self._sent = [o.gradient() for o in observations]
        self._task_of = task_of
        self._cut(size)
        repaid = compiler and compiler.repays(steps * len(self.chunks), self.victim.mean.device)
        self.compiler = compiler if repaid else None

    def _cut(self, size: int) -> None:
        """Into chunks of `size` batches."""
        self.size = size = min(size, len(self._task_of))
        self.chunks: list[Chunk] = []
        self._functions: list[Function] = []  # of the chunks, from their first evaluation
        alike: dict[tuple[int, ...], Chunk] = {}
        for start in range(0, len(self._task_of), size):
            tasks = tuple(self._task_of[start : start + size])
            rows = slice(start, start + len(tasks))
            if tasks not in alike:
                alike[tasks] = self._chunk(rows, tasks)
            self.chunks.append(replace(alike[tasks], rows=rows))

    def _of_chunks(self, function: Function, stage: Stage, variables: Variables) -> list[Tensor]:
        """What a function gives for the chunks, joined; where memory runs out chunks are halved from then on.

        Args:
            function: of a chunk, the stage, names, and the tensors of these names.

        Raises:
            InputError: memory does not suffice for a single batch.
        """
        while True:
            try:
                parts = [self._of_chunk(k, function, stage, variables) for k in range(len(self.chunks))]
            except torch.OutOfMemoryError:
                if self.size == 1:
                    raise InputError("one dummy batch is too large for the memory; lower --batch or --size.") from None
                smaller = self.size // 2
                warnings.warn(f"memory ran out; going on with chunks of {smaller}.", Notice, stacklevel=2)
            else:
                return list(parts[0]) if len(parts) == 1 else [torch.cat(part) for part in zip(*parts, strict=True)]
            self._cut(smaller)  # here, where nothing holds what was computed

    def _of_chunk(self, k: int, function: Function, stage: Stage, variables: Variables) -> Sequence[Tensor]:
        inputs = self._inputs(self.chunks[k], stage, variables)
        tensors = list(inputs.values())
        if k == len(self._functions):
            of_tensors = partial(function, self.chunks[k], stage, list(inputs))
            self._functions.append(self.compiler(of_tensors, tensors) if self.compiler else of_tensors)
        return self._functions[k](*tensors)

    def _chunk(self, rows: slice, tasks: tuple[int, ...]) -> Chunk:
        def gather(tensors: Sequence[Tensor]) -> Tensor:
            if len(set(tasks)) == 1:
                return tensors[tasks[0]].expand(len(tasks), *tensors[0].shape)
            return torch.stack([tensors[task] for task in tasks])

        first = self.observations[0].knowledge
        received = {name: gather([sent[name] for sent in self._sent]) for name in self._sent[0]}
        given = [o.knowledge.statistics or {} for o in self.observations]
        return Chunk(
            rows,
            [Target(received) for received in by_round(self.victim, received)],
            None if first.labels is None else gather([o.knowledge.labels for o in self.observations]),
            {f"bn {layer}": gather([statistics[layer] for statistics in given]) for layer in given[0]},
            first.estimate(received, self.victim) if first.estimate else lambda dummy: dummy,
        )

    def cost(self, images: Tensor, labels: Tensor) -> Tensor:
        """Of normalized images (n, B, C, H, W) and classes (n, B) or probabilities (n, B, K): (n,); differentiable."""
        return torch.cat([self._cost(chunk, images[chunk.rows], labels[chunk.rows]) for chunk in self.chunks])

    def cost_and_gradients(
        self, stage: Stage, variables: Variables
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Cost (n,), images and labels at `variables`, and the gradient of cost plus penalty in them."""
        cost, x, y, *grads = self._of_chunks(self._cost_and_gradients, stage, variables)
        return cost, x, y, dict(zip(variables, grads, strict=True))

    def _cost_and_gradients(self, chunk: Chunk, stage: Stage, names: Sequence[str], *inputs: Tensor) -> list[Tensor]:
        """Cost, images, labels and the gradients, of a chunk's variables and what is fixed, which have these names."""
        v = dict(zip(names, (tensor.detach() for tensor in inputs), strict=True))
        searched = [v[name].requires_grad_() for name in stage.variables]
        *judged, objective = self._evaluate(chunk, stage, v)
        grads = torch.autograd.grad(objective.sum(), searched)
        return [*(tensor.detach() for tensor in judged), *(g.contiguous() for g in grads)]  # as L-BFGS wants them

    def values(self, stage: Stage, variables: Variables) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cost (n,), images, labels and cost plus penalty (n,), where no gradient is asked for."""
        cost, x, y, objective = self._of_chunks(self._values, stage, variables)
        return cost, x, y, objective

    @torch.no_grad()
    def _values(self, chunk: Chunk, stage: Stage, names: Sequence[str], *inputs: Tensor) -> Sequence[Tensor]:
        return self._evaluate(chunk, stage, dict(zip(names, inputs, strict=True)))

    def _evaluate(self, chunk: Chunk, stage: Stage, v: Variables) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        v = {**v, **chunk.statistics}
        x = stage.decode(v)
        y = stage.labels(v) if stage.labels else chunk.labels
        cost = self._cost(chunk, x, y)
        return cost, x, y, cost + stage.penalty(v, x) if stage.penalty else cost

    def _inputs(self, chunk: Chunk, stage: Stage, variables: Variables) -> dict[str, Tensor]:
        """A chunk's part of the variables, and of what is fixed."""
        fixed = {name: self._of_runs(tensor, chunk.rows) for name, tensor in stage.fixed.items()}
        return {**{name: variable[chunk.rows] for name, variable in variables.items()}, **fixed}

    def _of_runs(self, tensor: Tensor, rows: slice) -> Tensor:
        if self.population == 1:
            return tensor[rows]
        return tensor[torch.arange(rows.start, rows.stop, device=tensor.device) // self.population]

    def _cost(self, chunk: Chunk, images: Tensor, labels: Tensor) -> Tensor:
        dummy = by_round(self.victim, chunk.transform(self._gradients(images, labels)))
        return sum(self.distance(part, target) for part, target in zip(dummy, chunk.targets, strict=True))

    def _gradients(self, images: Tensor, labels: Tensor) -> Gradient:
        """Of every run, (n, *shape) per parameter, the fastest way."""
        one = len(images) == 1
        if self.layers and (self.layers.saves or not one):
            return self.layers.gradient(images, labels)
        vectorized = self.vectorized and not one  # measured: one run is faster without
        return victim_gradients(self.victim, images, labels, local=self.local, vectorized=vectorized)


def refuse_unknown_scale(distance: Callable[[Gradient, Gradient], Tensor], update: Gradient, match: Match) -> None:
    """Refuse what needs a learning rate that the attacker does not know.

    Args:
        update: not stacked; for its shapes alone.

    Raises:
        InputError: the training would have to be repeated, or the distance changes with a gradient's length.
    """
    if match == "fa":
        raise InputError(
            "fa repeats the clients' training and needs their learning rate; run with --know-lr true, or --match aga."
        )
    generator = torch.Generator().manual_seed(0)
    one, other = ({n: torch.randn(1, *g.shape, generator=generator).to(g) for n, g in update.items()} for _ in "ab")
    longer = {name: 2 * g for name, g in one.items()}
    if not torch.allclose(distance(longer, other), distance(one, other), rtol=1e-3):
        raise InputError(
            "this distance depends on the length of the gradient, which an unknown learning rate hides; take an attack "
            "that compares directions (cosine), or run with --know-lr true."
        )
