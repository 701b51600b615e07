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
    """torch's L-BFGS, one for each instance: its history and curvature must not mix instances.

    One `step` is one iteration on the given gradient, without line search, as in DLG's code. So a step costs one victim
    gradient, as with every other optimizer. No tolerance stops it: the attack has a budget.
    """

    def __init__(self, variables: Sequence[Tensor], lr: float) -> None:
        """
        Args:
            variables: (R, ...) each.
        """
        self.variables = variables
        self.views = [[v[instance] for v in variables] for instance in range(len(variables[0]))]
        self.each = [
            torch.optim.LBFGS(views, lr=lr, max_iter=1, tolerance_grad=0, tolerance_change=0) for views in self.views
        ]
        self.param_groups = [group for optimizer in self.each for group in optimizer.param_groups]

    def step(self) -> None:
        for instance, views in enumerate(self.views):
            for view, variable in zip(views, self.variables, strict=True):
                assert variable.grad is not None
                view.grad = variable.grad[instance]
            self.each[instance].step(lambda: 0.0)  # the gradient is known already


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
