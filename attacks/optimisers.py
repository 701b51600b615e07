"""How the variables of a stage move, given their gradients. Every run moves by itself."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.optim import Adam

adam = partial(Adam, fused=True)  # one pass over the variables; GIAS moves millions per image


class LBFGS:
    """torch's L-BFGS, one for each run: its history and curvature must not mix runs.

    One `step` is one iteration on the gradient at hand, without line search, as DLG's code has it: so a step
    costs one victim gradient, as with every other optimiser. It stops for no tolerance: the attack has a budget.
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
