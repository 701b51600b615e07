"""The phases of a search, and what it ends with."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from torch import Tensor
from torch.optim import Adam, Optimizer

from attacks.schedules import constant
from victims.errors import InputError

Variables = Mapping[str, Tensor]
"""What a stage searches, by name; every tensor is (R, ...)."""

adam = partial(Adam, fused=True)  # one pass over the variables; GIAS moves millions per image


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One phase of a search.

    Attributes:
        name: the space that is searched, as the paper writes it: x, z, w, ...
        variables: where the search starts, (R, ...) each.
        decode: variables and `fixed` -> images (R, B, C, H, W), normalised as the victim wants them.
        lr: learning rate.
        fixed: tensors (R, ...) that `decode` needs and that do not move.
        optimiser: called with the variables and lr.
        schedule: factor on the learning rate at (step, steps).
        penalty: (variables, images) -> (R,), added to the matching cost for the step, never for the judgement.
        project: changes the variables in place after every step.
        signed: only the sign of the gradient reaches the optimiser.
        keep: after this stage every restart goes on from `each` its own best variables, or only the `best`
            restart of each task goes on.
    """

    name: str
    variables: Variables
    decode: Callable[[Variables], Tensor]
    lr: float
    fixed: Variables = field(default_factory=dict)
    optimiser: Callable[..., Optimizer] = adam
    schedule: Callable[[int, int], float] = constant
    penalty: Callable[[Variables, Tensor], Tensor] | None = None
    project: Callable[[Variables], None] | None = None
    signed: bool = False
    keep: Literal["each", "best"] = "each"


Search = Generator[Stage, dict[str, Tensor], None]


@dataclass(frozen=True)
class Reconstruction:
    """What an attack returns for T tasks.

    Attributes:
        images: (T, B, C, H, W) in the victim's input space.
        cost: (T,) the matching cost of exactly these images; infinite where no start ever had a finite one.
        curve: one (stage, costs) per step, costs (T,): the least over the task's restarts at that step.
        gradient_evaluations: victim gradients computed per task.
    """

    images: Tensor
    cost: Tensor
    curve: list[tuple[str, Tensor]]
    gradient_evaluations: int


def share_out(plan: Mapping[str, int], steps: int) -> dict[str, int]:
    """`steps` divided over the stages in the plan's proportions, at least one each, summing exactly.

    Raises:
        InputError: fewer steps than stages.
    """
    if steps < len(plan):
        raise InputError(f"steps is {steps}, but there are {len(plan)} stages ({', '.join(plan)}); give more.")
    spare, total = steps - len(plan), sum(plan.values())
    quotas = {name: spare * count / total for name, count in plan.items()}
    shares = {name: 1 + int(quota) for name, quota in quotas.items()}
    for name in sorted(quotas, key=lambda name: int(quotas[name]) - quotas[name])[: steps - sum(shares.values())]:
        shares[name] += 1
    return shares
