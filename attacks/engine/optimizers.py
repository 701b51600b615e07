"""How the variables of a stage move, given their gradients. Every run moves by itself."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import cma
import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from attacks.engine.schedules import multistep


class Adam:
    """Adam (Kingma & Ba, 2015) by torch's function, which goes once over the variables: GIAS moves millions per image.

    Before every step torch's class looks for accelerators, which takes up to a tenth of a step.
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
            [v.grad for v in self.variables],
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
    """Adam on the variables, in place, with GIAS's schedule: the objective in front of every step."""
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
    """torch's L-BFGS, one for each run: its history and curvature must not mix runs.

    One `step` is one iteration on the gradient at hand, without line search, as DLG's code has it: so a step
    costs one victim gradient, as with every other optimizer. It stops for no tolerance: the attack has a budget.
    """

    def __init__(self, variables: Sequence[Tensor], lr: float) -> None:
        """
        Args:
            variables: (R, ...) each.
        """
        self.variables = variables
        self.views = [[v[run] for v in variables] for run in range(len(variables[0]))]
        self.runs = [
            torch.optim.LBFGS(views, lr=lr, max_iter=1, tolerance_grad=0, tolerance_change=0) for views in self.views
        ]
        self.param_groups = [group for run in self.runs for group in run.param_groups]

    def step(self) -> None:
        for run, views in enumerate(self.views):
            for view, variable in zip(views, self.variables, strict=True):
                view.grad = variable.grad[run]
            self.runs[run].step(lambda: 0.0)  # the gradient is there already


FULL = 1_000  # dimensions up to which CMA-ES keeps a full covariance; its decomposition grows with their cube


class CMAES:
    """The package cma's CMA-ES, one for each run, over all that the run searches as one vector.

    Beyond `FULL` dimensions the covariance is diagonal.
    """

    def __init__(self, variables: Sequence[Tensor], lr: float, *, population: int, seeds: Sequence[int]) -> None:
        """
        Args:
            variables: (R, ...) each; where the search starts.
            lr: the first step size, sigma_0; it then adapts itself.
            population: candidates per run and step.
            seeds: one per run.
        """
        self.variables = variables
        self.param_groups = [{"lr": lr}]
        starts = torch.cat([v.flatten(1) for v in variables], 1).double().numpy(force=True)
        self.runs = [
            cma.CMAEvolutionStrategy(
                start,
                lr,
                {
                    "popsize": population,
                    "seed": float("nan"),  # leaves numpy's global generator alone
                    "randn": np.random.RandomState(seed % 2**32).randn,
                    "CMA_diagonal": start.size > FULL,
                    "verbose": -9,
                },
            )
            for start, seed in zip(starts, seeds, strict=True)
        ]

    def ask(self) -> list[Tensor]:
        """Candidates for every variable, (R, population, ...)."""
        self.asked = [run.ask() for run in self.runs]
        vectors = torch.as_tensor(np.array(self.asked)).to(self.variables[0])
        parts = vectors.split([v[0].numel() for v in self.variables], -1)
        return [part.unflatten(-1, v.shape[1:]) for part, v in zip(parts, self.variables, strict=True)]

    def tell(self, values: Tensor) -> None:
        """What was minimized, at those candidates, (R, population); what is not finite counts as very large."""
        finite = values.double().nan_to_num(1e30, 1e30, 1e30).numpy(force=True)
        for run, candidates, told in zip(self.runs, self.asked, finite, strict=True):
            run.tell(candidates, told.tolist())
