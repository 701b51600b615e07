"""Checks of what an attack's author must keep to: a mistake gives one line that names it, not an error deep inside.

The contracts are those of `Attack` and `Stage`. Nothing here costs more than a comparison of shapes.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence, Set
from contextlib import suppress
from functools import cache
from inspect import signature
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from torch import Tensor
from torch.utils._pytree import tree_leaves

from attacks.engine.stage import Search, Stage, Variables
from victims.contract import Broken, line_of
from victims.errors import InputError
from victims.trial import type_and_shape

if TYPE_CHECKING:
    from attacks.base import Attack

PLAN = "the plan names the stages"
COMMON = "every attack takes the common options"
SEARCH = "search yields the stages of the plan"
VARIABLES = "variables are (R, ...)"
RATE = "the learning rate is a finite number"
DECODE = "decode gives images (R, B, C, H, W)"
DIFFERENTIABLE = "the cost is differentiable in every variable"
LABELS = "needs names what is asked for"
DECLARED = "needs and uses name what there is"
LABELS_SHAPE = "labels are (R, B) or (R, B, K)"
PENALTY = "the penalty is (R,)"
OBJECTIVE = "the objective is (R,)"
DISTANCE = "the distance is (R,)"
PROJECT = "project changes the variables in place"

NEEDS = 'write needs = frozenset({"labels"}) in the class'

ATTRIBUTES = {"compile": "compiling"}
"""Attributes of an attack that are not called as their option is."""


def built(method: "type[Attack]", options: Mapping[str, Any], common: Sequence[str]) -> "Attack":
    """The attack with these options, of which the common ones must reach it.

    Raises:
        InputError: see `check_options`.
        Broken: the common ones do not, or its `__init__` does not call that of `Attack`.
    """
    name, place = method.__name__, line_of(method.__init__, method)
    try:
        signature(method).bind(**options)
    except TypeError as error:
        fix = "give every option a default, write **common: Unpack[Common], and give it to super().__init__"
        raise Broken(COMMON, f"{name}.__init__ {error}; {fix}", place) from None
    attack = method(**options)
    if "plan" not in vars(attack):
        raise Broken(PLAN, f"{name}.__init__ does not call super().__init__; give it the stages and **common", place)
    for option in common:
        if options.get(option) not in (None, "auto") and reached(attack, option) != options[option]:  # auto: it decides
            wrong = f"{name} was given {option}={options[option]} and has {reached(attack, option)}"
            raise Broken(COMMON, f"{wrong}; give **common to super().__init__", place)
    return attack


class Checked:
    """A class whose options are checked before the `__init__` of a subclass reads them, however it is built."""

    def __new__(cls, *given: Any, **options: Any) -> Self:
        check_options(cls, options)
        return super().__new__(cls)


def check_options(method: Any, options: Mapping[str, Any]) -> None:
    """Each as it is annotated; what is read from a command line is right already.

    Raises:
        InputError: an option is none of its choices, or no number where it takes one.
    """
    hints = hints_of(method)
    for option in options.keys() & hints.keys():
        hint, value = hints[option], options[option]
        kinds = set(get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,))
        if value is None and NoneType in kinds:
            continue
        if get_origin(hint) is Literal and value not in get_args(hint):
            expected = f"one of {', '.join(map(str, get_args(hint)))}"
        elif kinds <= {int, NoneType} and (not isinstance(value, Integral) or isinstance(value, bool)):
            expected = "a whole number"
        elif kinds <= {float, NoneType} and (not isinstance(value, Real) or isinstance(value, bool)):
            expected = "a number"
        else:
            continue
        raise InputError(f"{method.name} option {option} is {expected}, not {value!r}.")


@cache
def hints_of(method: type) -> Mapping[str, Any]:
    """The annotation of every option, from the `__init__` that names it and is nearest to the method.

    Kept by class: a search builds an attack for every number of steps that it weighs.
    """
    hints: dict[str, Any] = {}
    for each in reversed(method.__mro__):
        if "__init__" not in vars(each):
            continue
        own = signature(vars(each)["__init__"]).parameters
        hints = {name: hint for name, hint in hints.items() if name not in own}
        with suppress(NameError, AttributeError, TypeError):  # an author's annotation, which says nothing here
            hints |= get_type_hints(vars(each)["__init__"])
    return hints


def reached(attack: "Attack", option: str) -> Any:
    return sum(attack.plan.values()) if option == "steps" else getattr(attack, ATTRIBUTES.get(option, option))


def check_declared(attack: "Attack") -> None:
    """
    Raises:
        Broken: `needs` or `uses` is no set, or names what no attack can be given.
    """
    for attribute, known in (("needs", {"labels", "prior"}), ("uses", {"bn"})):
        named: Any = getattr(attack, attribute)
        if not isinstance(named, Set) or not named <= known:
            fix = f"write a frozenset of any of {', '.join(sorted(known))}"
            wrong = f"{type(attack).__name__}.{attribute} is {named!r}; {fix}"
            raise Broken(DECLARED, wrong, line_of(type(attack)))


def checked_plan(attack: "Attack", plan: Any) -> Mapping[str, int]:
    """
    Raises:
        Broken: it names no stages with their steps.
    """
    name, place = type(attack).__name__, line_of(type(attack).__init__, type(attack))
    fix = 'give super().__init__ the stages with their steps, such as {"x": 300}'
    if not plan:
        raise Broken(PLAN, f"{name} has no plan; {fix}", place)
    if not isinstance(plan, Mapping) or not all(isinstance(steps, int) for steps in plan.values()):
        raise Broken(PLAN, f"{name} has the plan {plan!r}; {fix}", place)
    return plan


def opened(attack: "Attack") -> Search:
    """The search that the method defines.

    Raises:
        Broken: it yields nothing.
    """
    found: Any = attack.search()
    if not isinstance(found, Generator):
        wrong = f"{type(attack).__name__}.search returns {type_and_shape(found)}; yield each Stage instead"
        raise Broken(SEARCH, wrong, line_of(type(attack).search))
    return found


def check_stage(attack: "Attack", stage: Any, search: Search, ahead: Sequence[str], instances: int) -> None:
    """Of a stage that was just yielded.

    Args:
        ahead: the stages of the plan that have not come yet.
        instances: R.

    Raises:
        Broken: it is no Stage, not the next of the plan, or has no variables (R, ...) or learning rate.
    """
    name, place = type(attack).__name__, line_of(search, type(attack).search, type(attack))
    if not isinstance(stage, Stage):
        raise Broken(SEARCH, f"{name}.search yields {type_and_shape(stage)}; yield Stage(...)", place)
    if list(ahead[:1]) != [stage.name]:
        wanted = f"'{ahead[0]}' is next in the plan" if ahead else "no stage is left in the plan"
        fix = f"yield the stages of the plan, {', '.join(attack.plan)}, in its order, or name it there"
        raise Broken(SEARCH, f"{name}.search yields the stage '{stage.name}', and {wanted}; {fix}", place)
    if not stage.variables:
        raise Broken(VARIABLES, f"the stage '{stage.name}' has none; give variables= what it searches", place)
    for kind, tensors in (("variable", stage.variables), ("fixed tensor", stage.fixed)):
        for key, tensor in tensors.items():
            if not isinstance(tensor, Tensor) or tensor.shape[:1] != (instances,):
                fix = f"give ({instances}, ...), the instances (tasks times restarts) first, as self.noise() has them"
                raise Broken(VARIABLES, f"the {kind} '{key}' is {type_and_shape(tensor)}; {fix}", place)
    for key, tensor in stage.variables.items():
        if stage.population == 1 and not tensor.is_floating_point():
            raise Broken(VARIABLES, f"the variable '{key}' is {tensor.dtype}; gradients exist for floats alone", place)
    if not isinstance(stage.lr, int | float) or not math.isfinite(stage.lr):
        raise Broken(RATE, f"lr of the stage '{stage.name}' is {stage.lr}; give a finite number", place)
    if not stage.labels and not stage.objective and any(o.knowledge.labels is None for o in attack.observations):
        wrong = f"the stage '{stage.name}' takes labels that the attacker is not given"
        raise Broken(LABELS, f"{wrong}; {NEEDS}, or give the stage labels=", place)
    if stage.decode is Stage.decode and not stage.objective and "x" not in {**stage.variables, **stage.fixed}:
        fix = "give decode= a function of the variables that gives images"
        raise Broken(DECODE, f"the stage '{stage.name}' has no decode and no variable x; {fix}", place)


def check_ended(attack: "Attack", ahead: Sequence[str]) -> None:
    """
    Raises:
        Broken: the search ended before its plan.
    """
    if ahead:
        missing = ", ".join(f"'{name}'" for name in ahead)
        wrong = f"{type(attack).__name__}.search ends before {missing} of its plan"
        raise Broken(
            SEARCH, f"{wrong}; yield a Stage of this name, or take it out of the plan", line_of(type(attack).search)
        )


def check_known(attack: "Attack", given: Sequence[Tensor | None]) -> None:
    """
    Raises:
        Broken: the attacker is not given it.
    """
    if any(one is None for one in given):
        wrong = f"{type(attack).__name__}.search uses what the attacker is not given; {NEEDS}"
        raise Broken(LABELS, wrong, line_of(type(attack).search, type(attack)))


def check_images(stage: Stage, images: Any, shape: Sequence[int]) -> None:
    """
    Args:
        shape: (n, B, C, H, W).
    """
    check_shape(DECODE, f"decode of the stage '{stage.name}'", images, shape, stage.decode)


def check_labels(stage: Stage, labels: Any, shape: Sequence[int]) -> None:
    """
    Args:
        shape: (n, B).
    """
    if not isinstance(labels, Tensor) or labels.ndim not in (2, 3) or tuple(labels.shape[:2]) != tuple(shape):
        wrong = f"labels of the stage '{stage.name}' gives {type_and_shape(labels)}"
        raise Broken(LABELS_SHAPE, f"{wrong}; expected {tuple(shape)}, or probabilities", line_of(stage.labels))


def check_each(contract: str, what: str, value: Any, n: int, function: Callable[..., Any]) -> None:
    """A number for each of n dummy batches."""
    check_shape(contract, what, value, (n,), function)


def check_shape(
    contract: str, what: str, value: Any, shape: Sequence[int], function: Callable[..., Any] | None
) -> None:
    """
    Raises:
        Broken: it is no tensor of this shape.
    """
    if not isinstance(value, Tensor) or value.shape != tuple(shape):
        raise Broken(contract, f"{what} gives {type_and_shape(value)}; expected {tuple(shape)}", line_of(function))


def check_reached(stage: Stage, cost: Tensor, images: Tensor, distance: Callable[..., Any]) -> None:
    """
    Raises:
        Broken: the cost depends on no variable by operations that torch can differentiate.
    """
    if cost.requires_grad:
        return
    function: Callable[..., Any] = stage.objective or (distance if images.requires_grad else stage.decode)
    what = "objective" if stage.objective else "distance" if images.requires_grad else "decode"
    fix = "take out detach(), no_grad(), numpy or rounding, or set population= for a gradient-free optimizer"
    raise Broken(
        DIFFERENTIABLE,
        f"{what} of the stage '{stage.name}' has no derivative in its variables; {fix}",
        line_of(function),
    )


def check_used(stage: Stage, gradients: Mapping[str, Tensor | None]) -> None:
    """
    Raises:
        Broken: a variable is not in the cost.
    """
    for name, gradient in gradients.items():
        if gradient is None:
            fix = "use it in decode, take it out, or put it into fixed="
            wrong = f"the cost of the stage '{stage.name}' does not depend on its variable '{name}'"
            raise Broken(DIFFERENTIABLE, f"{wrong}; {fix}", line_of(stage.objective or stage.decode))


def check_projected(stage: Stage, before: Variables, after: Variables, returned: Any) -> None:
    """
    Args:
        before, after: the variables by name, as they were given and as they were left.
        returned: by `project`.

    Raises:
        Broken: it made new tensors, which nothing continues from.
    """
    memory = {v.untyped_storage().data_ptr() for v in before.values()}
    new = any(
        isinstance(part, Tensor) and part.untyped_storage().data_ptr() not in memory for part in tree_leaves(returned)
    )
    if new or any(after.get(name) is not v for name, v in before.items()):
        wrong = f"project of the stage '{stage.name}' {'returns' if new else 'puts'} new tensors, which nothing reads"
        fix = "write into the given ones, as by v['x'].clamp_(...)"
        raise Broken(PROJECT, f"{wrong}; {fix}", line_of(stage.project))
