"""How many steps an attack may take within a budget of victim gradients."""

import warnings
from collections.abc import Callable

from attacks.base import Attack
from victims.errors import InputError, Notice
from victims.observation import Observation


def evaluations(attack: Attack, observation: Observation) -> int:
    """The victim gradients that an attack computes for a task, found by going through its stages without a step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # the run itself will say it
        attack.begin([observation])
    found = 0
    while not attack.session.ended:
        found += attack.session.skip()
    return found


def most_steps(make: Callable[[int | None], Attack], observation: Observation, budget: int) -> int | None:
    """The most steps with which an attack stays within a budget.

    Steps that compute no victim gradient, as of a source separation, cost nothing of the budget, but do not multiply
    with it either: there are never more steps in total than the attack's own number, or than the budget.

    Args:
        make: the attack with so many steps in total; None for its own.
        budget: victim gradients per task.

    Returns:
        None where the steps do not decide: of a closed form, and where the attack's own number of them stays within
        the budget and twice as many cost no more.

    Raises:
        InputError: the attack cannot work on the observation, or the least that it can do is over the budget.
    """
    own = make(None)
    own.check(observation)
    if own.analytic:
        return None
    cost = evaluations(own, observation)
    fewest = len(own.plan)

    def of(steps: int) -> int:
        attack = make(steps)
        attack.paths = own.paths  # found once
        return evaluations(attack, observation)

    steps = sum(own.plan.values())
    if cost <= budget and of(2 * steps) == cost:
        return None
    if (least := of(fewest)) > budget:
        raise InputError(f"{own.name} needs {least} victim gradients at least, and the budget is {budget}.")
    low, high = fewest, max(steps, budget)
    if of(high) <= budget:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if of(middle) <= budget else (low, middle)
    return low
