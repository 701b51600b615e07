"""The contracts of an attack's options, and of what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from attacks.base import Attack
from attacks.engine.space import check_space
from benchmark.check.attack_case import STEPS, Case
from benchmark.check.fails import Fails, require
from benchmark.check.small import small_denoiser
from benchmark.method_options import options_of
from priors.base import Generator
from victims.errors import InputError
from victims.observation import Observation


def every_common_option_reaches_it(case: Case) -> None:
    method = case.method
    options: dict[str, Any] = {"restarts": 3, "seed": 7, "chunk": 2, "match": "aga", "compile": "off"}
    if not method.analytic:
        options |= {"steps": case.steps + 3, "refine": small_denoiser()}
    if "labels" in method.needs:
        options["label_method"] = "llg"
    case.make(**options)


def its_search_space_has_options_of_its_own_around_their_defaults(case: Case) -> None:
    method = case.method
    own = {name: option.default for name, option in options_of(method).items() if name not in ("restarts", "steps")}
    try:
        check_space(method.space, own)
    except InputError as error:
        raise Fails(str(error), method) from None
    for name, values in method.space.items():
        for value in values:  # or the ends of their range
            option: dict[str, Any] = {name: value}
            case.make(**option)


def every_option_of_its_search_space_changes_the_search(case: Case) -> None:
    method, observation = case.method, case.capture().observation
    if method.analytic or not method.space:  # a closed form searches only what it cannot solve
        return
    # What the first step of a stage changes, the second judges.
    short = {"steps": None} | {name: 2 for name in options_of(method) if name.startswith("steps_")}

    def make(**option: Any) -> Attack:
        return case.make(restarts=2, **short | option)

    usual = make()
    found = usual.run([observation])

    def changed(option: dict[str, Any]) -> bool:
        """Whether it changes the steps, an image, a cost or the number of victim gradients."""
        attack = make(**option)
        if attack.plan != usual.plan:
            return True
        other = attack.run([observation])
        costs = [torch.stack([cost for _, cost in each.curve]) for each in (found, other)]
        alike = torch.equal(*costs) and torch.equal(found.images, other.images)
        return not alike or found.gradient_evaluations != other.gradient_evaluations

    for name, values in method.space.items():
        has_effect = any(changed({name: value}) for value in values)
        require(has_effect, f"no value of {name} in its search space changes an image or a cost", *case.where)


def presets_and_defaults_fit_the_constructor(case: Case) -> None:
    method = case.method
    for name, preset in {"": {}, **method.presets}.items():
        options: dict[str, Any] = {**preset} if method.analytic else {"steps": None, **preset}
        attack = case.make(**options)
        require(all(count >= 1 for count in attack.plan.values()), f"a stage of {name} has no steps", method)
        require(not preset or "restarts" in preset, f"{name} lacks restarts, the number of its source", method)
        require(not name or getattr(preset, "source", ""), f"{name} does not say its source", method)
    require(method.__doc__, "it has no docstring that says what it does and who published it", method)


def refused(act: Callable[[], object], word: str, when: str, *places: Any) -> None:
    """
    Raises:
        Fails: nothing is refused, or not in one line with this word.
    """
    try:
        act()
    except InputError as error:
        line = str(error)
        require(word in line and "\n" not in line, f"{when} is refused by '{line}', without '{word}'", *places)
    else:
        raise Fails(f"{when} is not refused", *places)


def an_observation_that_does_not_fit_is_refused(case: Case) -> None:
    method, at = case.method, refused

    def begin(observation: Observation) -> None:
        case.make().begin([observation])

    if "labels" in method.needs:
        at(lambda: begin(case.capture(give_labels=False).observation), "labels", "one without labels", method.check)
    if "prior" in method.needs:
        at(method, "prior", "no prior", method)
        if issubclass(method.takes, Generator):  # the prior makes 32 px
            at(lambda: begin(case.capture(size=40).observation), "image", "one of larger images", method.check)
    if method.analytic:
        at(lambda: method(steps=STEPS), "steps", "a number of steps", method)
    if "batch" in method.made_for:
        at(
            lambda: begin(replace(case.capture().observation, batch_size=2)),
            "batch",
            "another batch size",
            method.check,
        )
    if method.made_for.get("defense") == "none":
        at(lambda: begin(case.capture(rate=0.5).observation), "--defense none", "one with a defense", method.check)
    if "bn" not in method.uses:
        observation = case.capture().observation
        told = replace(observation.knowledge, statistics={"bn1": torch.zeros(2, 8)})
        at(lambda: begin(replace(observation, knowledge=told)), "batch-norm", "batch-norm statistics", method.check)
