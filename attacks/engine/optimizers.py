"""How a step changes the variables of a stage. Instances never influence each other."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import cma
import numpy as np
import torch
from cma.sigma_adaptation import CMAAdaptSigmaCSA
from torch import Tensor
from torch.optim.adam import adam

from attacks.engine.schedules import multistep
from victims.errors import InputError

HISTORY = 100  # pairs that L-BFGS keeps, as torch's class by default


class Adam:
    """Adam (Kingma & Ba, 2015) by torch's fused function, in one pass: GIAS optimizes millions of variables per image.

    torch's class checks for accelerators before every step, which takes up to a tenth of a step.
    """

    def __init__(self, variables: Iterable[Tensor], lr: float) -> None:
        self.variables = list(variables)
        self.param_groups = [{"lr": lr}]
        self.first, self.second = ([torch.zeros_like(v) for v in self.variables] for _ in range(2))  # moments
        self.steps = [torch.zeros((), device=v.device) for v in self.variables]

    @torch.no_grad()
    def step(self) -> None:
        adam(
            self.variables,
            [v.grad for v in self.variables if v.grad is not None],
            self.first,
            self.second,
            [],
            self.steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.param_groups[0]["lr"],
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


def minimize(objective: Callable[[], Tensor], variables: Sequence[Tensor], lr: float, steps: int) -> Iterator[float]:
    """Adam on the variables, in place, with GIAS's schedule; yields the objective before every step."""
    optimizer = Adam(variables, lr=lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * multistep(step, steps)
        value = objective()
        gradients = torch.autograd.grad(value, variables)
        yield value.item()
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.grad = gradient
        optimizer.step()


class LBFGS:
    """L-BFGS of all instances at once, each with a history of its own, as torch's class does it for each alone.

    One `step` is one iteration on the given gradient, without line search, as in DLG's code. So a step costs one victim
    gradient, as with every other optimizer. No tolerance stops it: the attack has a budget.

    The direction is that of the two-loop recursion, but by products with the whole history (Byrd, Nocedal & Schnabel,
    1994): its loops over pairs become two triangular systems in <s_i, y_j>. Measured at dlg's 3082 variables, this
    takes a third (one instance) to two thirds (four) of the time of torch's class, and on a GPU it waits for no number.
    """

    def __init__(self, variables: Sequence[Tensor], lr: float) -> None:
        """
        Args:
            variables: (R, ...) each.
        """
        self.variables, self.param_groups = variables, [{"lr": lr}]
        self.sizes = [v[0].numel() for v in variables]
        R, n, new = len(variables[0]), sum(self.sizes), variables[0].new_zeros
        self.gradient, self.moved = new(R, n), new(R, n)  # of the step before
        # Rings of pairs; those that are not there yet are zero, and change nothing.
        self.s, self.y, self.sy = new(R, HISTORY, n), new(R, HISTORY, n), new(R, HISTORY, HISTORY)
        self.scale = new(R, 1) + 1  # of the initial inverse Hessian
        self.kept = torch.zeros(R, 1, dtype=torch.long, device=variables[0].device)  # pairs so far
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        g = torch.cat([v.grad.flatten(1) for v in self.variables if v.grad is not None], 1)
        self._keep(self.moved, g - self.gradient)
        d, rate = self._direction(g), self.param_groups[0]["lr"]
        length = rate if self.steps else (1 / g.abs().sum(1, keepdim=True)).clamp_max(1) * rate
        self.gradient, self.moved, self.steps = g, length * d, self.steps + 1
        uphill = inner(g, d) > 0  # torch's class does not move then, but remembers the step
        for variable, part in zip(self.variables, self.moved.where(~uphill, 0).split(self.sizes, 1), strict=True):
            variable += part.view_as(variable)

    def _keep(self, s: Tensor, y: Tensor) -> None:
        """A pair, (R, n) each, in place of the oldest one, in instances where its curvature is positive."""
        sy, place = inner(s, y), (self.kept % HISTORY)[:, :, None]
        positive = sy > 1e-10

        def put(history: Tensor, dim: int, new: Tensor) -> None:
            index = place.expand_as(new)
            history.scatter_(dim, index, new.where(positive[:, :, None], history.gather(dim, index)))

        put(self.s, 1, s[:, None])
        put(self.y, 1, y[:, None])
        put(self.sy, 2, self.s @ y[:, :, None])  # <s_i, y_j> of i older than j, which are all that is read
        self.scale = (sy / inner(y, y)).where(positive, self.scale)
        self.kept += positive

    def _direction(self, g: Tensor) -> Tensor:
        """-H g, (R, n)."""
        order = (self.kept + torch.arange(HISTORY, device=g.device)) % HISTORY  # from the oldest pair
        order, back = order[:, :, None], order.argsort()[:, :, None]
        sy = self.sy.gather(1, order.expand_as(self.sy)).gather(2, order.mT.expand_as(self.sy))
        curvature = sy.diagonal(dim1=1, dim2=2)
        curvature += curvature == 0
        first = torch.linalg.solve_triangular(sy, -(self.s @ g[:, :, None]).gather(1, order), upper=True)
        d = self.scale * (-g - (first.gather(1, back).mT @ self.y)[:, 0])
        both = curvature[:, :, None] * first - (self.y @ d[:, :, None]).gather(1, order)
        second = torch.linalg.solve_triangular(sy.mT, both, upper=False)
        return d + (second.gather(1, back).mT @ self.s)[:, 0]


def inner(a: Tensor, b: Tensor) -> Tensor:
    """(R, n) twice -> (R, 1)."""
    return (a * b).sum(1, keepdim=True)


SMALLEST = 3  # population of CMA-ES: two of its candidates, from 300 dimensions on, test the step size
FULL = 1_000  # dimensions up to which CMA-ES keeps a full covariance; its decomposition costs their cube


class CMAES:
    """CMA-ES of the package cma, one for each instance, over all variables of the instance as one vector.

    With more than `FULL` dimensions the covariance is diagonal.

    Generations may be smaller than the population of a step, as in code that asks the package nevergrad for a fixed
    number of candidates: a generation then begins in one step and may end in the next, and of those that end in a step
    the strategy learns from the first alone. The others are evaluated for nothing. The step size then adapts by the
    cumulated path (CSA) at every dimension, as in that code: two-point adaptation, which cma has since version 4 from
    300 dimensions on, needs every generation that is drawn.
    """

    def __init__(
        self,
        variables: Sequence[Tensor],
        lr: float,
        *,
        population: int,
        seeds: Sequence[int],
        generation: int | None = None,
    ) -> None:
        """
        Args:
            variables: (R, ...) each; the starting point.
            lr: the initial step size, sigma_0; CMA-ES adapts it.
            population: candidates per instance and step.
            seeds: one per instance.
            generation: candidates that a strategy draws, and learns from, at once; None is the population.

        Raises:
            InputError: a population of less than a generation.
        """
        self.variables, self.population, self.generation = variables, population, generation or population
        if self.generation > population:
            raise InputError(f"population is {population}, less than a generation; give {generation} or more.")
        self.param_groups = [{"lr": lr}]
        starts = torch.cat([v.flatten(1) for v in variables], 1).double().numpy(force=True)
        adaptation = {} if generation is None else {"AdaptSigma": CMAAdaptSigmaCSA}
        self.each = [
            cma.CMAEvolutionStrategy(
                start,
                lr,
                {
                    "popsize": self.generation,
                    "seed": float("nan"),  # does not touch numpy's global generator
                    "randn": np.random.RandomState(seed % 2**32).randn,
                    "CMA_diagonal": start.size > FULL,
                    "verbose": -9,
                    **adaptation,
                },
            )
            for start, seed in zip(starts, seeds, strict=True)
        ]
        self.drawn: list[list[np.ndarray]] = [[] for _ in self.each]  # candidates of generations that have not ended
        self.values: list[list[float]] = [[] for _ in self.each]  # of the first of them

    def ask(self) -> list[Tensor]:
        """Candidates for every variable, (R, population, ...)."""
        asked = []
        for strategy, drawn, known in zip(self.each, self.drawn, self.values, strict=True):
            while len(drawn) < len(known) + self.population:
                drawn += strategy.ask()
            asked.append(drawn[len(known) :][: self.population])
        vectors = torch.as_tensor(np.array(asked)).to(self.variables[0])
        parts = vectors.split([v[0].numel() for v in self.variables], -1)
        return [part.unflatten(-1, v.shape[1:]) for part, v in zip(parts, self.variables, strict=True)]

    def tell(self, values: Tensor) -> None:
        """The objective at those candidates, (R, population); values that are not finite count as very large."""
        finite = values.double().nan_to_num(1e30, 1e30, 1e30).numpy(force=True)
        for strategy, drawn, known, told in zip(self.each, self.drawn, self.values, finite, strict=True):
            known += told.tolist()
            strategy.tell(drawn[: self.generation], known[: self.generation])
            ended = len(known) // self.generation * self.generation
            del drawn[:ended], known[:ended]
