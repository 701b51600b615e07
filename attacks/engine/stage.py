"""The phases of a search, and what it ends with."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from attacks.closed_form.recursion import LayerReport
from attacks.engine.optimizers import Adam
from attacks.engine.schedules import constant
from victims.errors import InputError

Variables = Mapping[str, Tensor]
"""What a stage searches, by name; every tensor is (R, ...)."""


class Optimizer(Protocol):
    """What a stage needs of an optimizer; torch's own have it."""

    param_groups: list[dict[str, Any]]

    def step(self) -> Any: ...


class Population(Protocol):
    """What a stage needs of an optimizer that takes no gradients."""

    param_groups: list[dict[str, Any]]

    def ask(self) -> list[Tensor]:
        """Candidates for every variable, (R, population, ...)."""

    def tell(self, values: Tensor) -> None:
        """What was minimized, at those candidates, (R, population)."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One phase of a search.

    Attributes:
        name: the space that is searched, as the paper writes it: x, z, w, ...
        variables: where the search starts, (R, ...) each.
        decode: variables and `fixed` -> images (R, B, C, H, W), normalized as the victim wants them.
        lr: learning rate.
        fixed: tensors (R, ...) that the functions below are given with the variables and that no gradient moves.
        labels: variables and `fixed` -> what the dummy batch is labeled with, classes (R, B) or probabilities
            (R, B, K); None is what the attacker was given.
        optimizer: called with the variables and lr.
        population: where above 1, the optimizer takes no gradients: it asks for so many candidates per run at once, and
            is told their values.
        schedule: factor on the learning rate at (step, steps).
        penalty: (variables and `fixed`, images) -> (R,), added to the matching cost for the step, never for the
            judgment.
        project: changes the variables in place after every step; gets them and the number of steps taken.
        signed: only the sign of the gradient reaches the optimizer.
        keep: after this stage every restart goes on from `each` its own best variables, or only the `best`
            restart of each task goes on.
        latest: every step replaces what came before: the last measured variables are handed on, and the last image
            is returned, whatever they cost.
    """

    name: str
    variables: Variables
    decode: Callable[[Variables], Tensor]
    lr: float
    fixed: Variables = field(default_factory=dict)
    labels: Callable[[Variables], Tensor] | None = None
    optimizer: Callable[..., Optimizer | Population] = Adam
    population: int = 1
    schedule: Callable[[int, int], float] = constant
    penalty: Callable[[Variables, Tensor], Tensor] | None = None
    project: Callable[[Variables, int], None] | None = None
    signed: bool = False
    keep: Literal["each", "best"] = "each"
    latest: bool = False


def parted(state: Variables, searched: Iterable[str]) -> dict[str, Variables]:
    """A stage's `variables`, which are the named tensors of a generator's state, and `fixed`, all others."""
    variables = {name: state[name] for name in searched}
    return {"variables": variables, "fixed": {name: t for name, t in state.items() if name not in variables}}


Search = Generator[Stage, dict[str, Tensor], None]


@dataclass(frozen=True)
class Reconstruction:
    """What an attack returns for T tasks.

    Attributes:
        images: (T, B, C, H, W) in the victim's input space.
        labels: what they were labeled with when their cost was measured, (T, B) or probabilities (T, B, K).
        cost: (T,) the matching cost of exactly these images; infinite where no start ever had a finite one.
        curve: one (stage, costs) per step, costs (T,): the least over the task's restarts at that step.
        gradient_evaluations: victim gradients computed per task.
        layers: for attacks that go layer by layer, what they found of each, last layer first, for every task.
    """

    images: Tensor
    labels: Tensor
    cost: Tensor
    curve: list[tuple[str, Tensor]]
    gradient_evaluations: int
    layers: Sequence[Sequence[LayerReport]] = ()


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
