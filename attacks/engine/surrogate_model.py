"""Surrogate model extension: Zhu, Yao, Blaschko, *Surrogate Model Extension*, ICML 2023.

min over x and alpha of c(d loss / d theta (x; w), theta_0 - theta_T), where w = (1 - alpha) theta_0 + alpha theta_T and
0 <= alpha <= 1: the update of local training is matched as one gradient, at a point between the weights before and
after. One gradient per step, as by aga, which is alpha = 0; but each instance has its own weights, so that no factored
gradients can be used.

As in the authors' code there is one alpha for all weights. It starts at 0.5, and Adam moves it along with the images,
at a rate of 1e-3 under their schedule. Where images get only the sign of their gradient, so does alpha.

`assumed`: theta_T is theta_0 minus the update as it was received, for an attacker has no other; rounds share one alpha;
it goes on from one stage of a search to the next; gradient-free stages, and those with an objective of their own, leave
it as it is. The cost c is the attack's own, after what it always does with local momentum, decay and a defense; in the
paper it is the cosine.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from attacks.engine.inner_products import for_each
from attacks.engine.optimizers import Adam
from attacks.engine.stage import Optimizer, Stage, Variables
from victims.victim import Gradient

START = 0.5
RATE = 1e-3
ALPHA = "sme alpha"
"""Its name among the variables of a stage, where no variable of a method can have it."""


def surrogate_model(theta: Gradient, moved: Gradient, alpha: Tensor) -> Gradient:
    """theta_0 - alpha (theta_0 - theta_T), of every instance.

    Args:
        theta: theta_0, the same for all.
        moved: theta_0 - theta_T, (R, *shape) each.
        alpha: (R,).
    """
    return {name: (p - for_each(alpha, moved[name]) * moved[name]).to(p.dtype) for name, p in theta.items()}


class Together:
    """The optimizer of a stage's own variables, and Adam on alpha."""

    def __init__(self, own: Any, alpha: Tensor) -> None:
        adam = Adam([alpha], lr=RATE)
        adam.param_groups[0]["initial_lr"] = RATE  # which the stage's schedule then multiplies, not the stage's lr
        self.each: tuple[Optimizer, Optimizer] = own, adam
        self.param_groups = [*own.param_groups, *adam.param_groups]

    def step(self) -> None:
        for optimizer in self.each:
            optimizer.step()


def with_alpha(stage: Stage, alpha: Tensor) -> Stage:
    """The stage with alpha, (R,), among its variables; fixed where the stage has no gradient of the matching cost."""
    if stage.population > 1 or stage.objective:
        return replace(stage, fixed={**stage.fixed, ALPHA: alpha})

    def optimizer(variables: Sequence[Tensor], lr: float) -> Together:
        *own, alpha = variables
        return Together(stage.optimizer(own, lr=lr), alpha)

    def project(v: Variables, step: int) -> None:
        if stage.project:
            stage.project({name: v[name] for name in stage.variables}, step)
        v[ALPHA].clamp_(0, 1)

    return replace(stage, variables={**stage.variables, ALPHA: alpha}, optimizer=optimizer, project=project)
