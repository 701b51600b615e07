"""The stages of a search, and what it ends with."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Literal, Protocol

from torch import Tensor

from attacks.engine.optimizers import Adam
from attacks.engine.schedules import constant
from victims.errors import InputError

Variables = Mapping[str, Tensor]
"""What a stage optimizes, by name; every tensor is (R, ...)."""


class Optimizer(Protocol):
    """What a stage needs of an optimizer; torch's own have it."""

    param_groups: list[dict[str, Any]]

    def step(self) -> Any: ...


class Population(Protocol):
    """What a stage needs of a gradient-free optimizer."""

    param_groups: list[dict[str, Any]]

    def ask(self) -> list[Tensor]:
        """Candidates for every variable, (R, population, ...)."""

    def tell(self, values: Tensor) -> None:
        """The objective at those candidates, (R, population)."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a search.

    Attributes:
        name: the space that is searched, as the paper writes it: x, z, w, ...
        variables: the starting point, (R, ...) each.
        decode: variables and `fixed` -> images (R, B, C, H, W), normalized; by default the variable x.
        lr: learning rate.
        fixed: tensors (R, ...) that the functions below get together with the variables and that are not optimized.
        labels: variables and `fixed` -> labels of the dummy batch, classes (R, B) or probabilities (R, B, K); None
            takes the labels that the attacker was given.
        optimizer: called with the variables and lr.
        population: if above 1, the optimizer is gradient-free: it asks for this many candidates per instance at once,
            and is told their values.
        schedule: factor on the learning rate at (step, steps).
        penalty: (variables and `fixed`, images) -> (R,), added to the matching cost for the step, but not when the
            best is chosen.
        objective: variables and `fixed` -> (R,), minimized in place of the matching cost. Then there are no images and
            no victim gradients: the best variables are handed on, and a later stage makes the images that are judged.
        project: changes the variables in place after every step; called with them and the number of steps taken.
        signed: the optimizer gets only the sign of the gradient.
        keep: after this stage, `each` restart continues from its own best variables, or only the `best` restart of
            each task continues.
        latest: every step replaces the one before: the last judged variables are handed on and the last judged images
            are returned, whatever they cost.
    """

    name: str
    variables: Variables
    decode: Callable[[Variables], Tensor] = itemgetter("x")
    lr: float
    fixed: Variables = field(default_factory=dict)
    labels: Callable[[Variables], Tensor] | None = None
    optimizer: Callable[..., Optimizer | Population] = Adam
    population: int = 1
    schedule: Callable[[int, int], float] = constant
    penalty: Callable[[Variables, Tensor], Tensor] | None = None
    objective: Callable[[Variables], Tensor] | None = None
    project: Callable[[Variables, int], None] | None = None
    signed: bool = False
    keep: Literal["each", "best"] = "each"
    latest: bool = False


def split(state: Variables, searched: Iterable[str]) -> tuple[Variables, Variables]:
    """A generator's state, split into a stage's `variables`, the named tensors, and `fixed`, all others."""
    variables = {name: state[name] for name in searched}
    return variables, {name: tensor for name, tensor in state.items() if name not in variables}


Search = Generator[Stage, dict[str, Tensor], None]


@dataclass(frozen=True)
class LayerReport:
    """How far the linear system of one layer determined the layer's input.

    Attributes:
        layer: the module's name.
        unknowns: numbers in the layer's input.
        gradient_equations, weight_equations: how many were used.
        rank: of all equations together; below `unknowns` they do not determine the input.
        rank_is_bound: nothing was factorized, and `rank` is only an upper bound.
        residual: |A x - b| / |b|.
        input: the reconstructed input.
    """

    layer: str
    unknowns: int
    gradient_equations: int
    weight_equations: int
    rank: int
    rank_is_bound: bool
    residual: float
    input: Tensor


@dataclass(frozen=True)
class Reconstruction:
    """What an attack returns for T tasks.

    Attributes:
        images: (T, B, C, H, W), normalized.
        pixels: the same images in [0, 1], clamped.
        labels: the labels they had when their cost was measured, (T, B) or probabilities (T, B, K).
        cost: (T,) the matching cost of exactly these images; infinite if no start ever had a finite one.
        curve: one (stage, costs) per step, costs (T,): the least over the task's restarts at that step.
        gradient_evaluations: victim gradients computed per task.
        gradient_path: how they were computed, such as `factored+compiled`; several with commas, in order of use.
        certified: for attacks that can tell by themselves which images are those from which the update was computed,
            (T, B) of bool; None for all others.
        layers: for attacks that go layer by layer, a report of each layer, last layer first, for every task.
    """

    images: Tensor
    pixels: Tensor
    labels: Tensor
    cost: Tensor
    curve: list[tuple[str, Tensor]]
    gradient_evaluations: int
    gradient_path: str = ""
    certified: Tensor | None = None
    layers: Sequence[Sequence[LayerReport]] = ()


def share_out(plan: Mapping[str, int], steps: int) -> dict[str, int]:
    """`steps` divided over the stages in the plan's proportions, at least one each, with exactly this sum.

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
