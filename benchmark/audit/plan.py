"""The plan of an audit: which attacks, in which order, on how many images, and with how many steps."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from attacks.base import Attack
from benchmark.audit.estimate import EVERY, LABELS, Attempt, Cost, Probe, Under, measured
from benchmark.names import known
from benchmark.registry import find
from victims.errors import InputError, without_options
from victims.names import separated

FIRST = ("cocktail_party", "ci_net", "igims", "ig", "gifd", "gias", "gi")
"""After the closed forms: a separation; then the search that is first or may be the best on most tracks of the record,
and the one that is first behind noise and quantization, where it is not; then others over pixels and a generator."""

LEAST, MOST = 100, 4800  # steps of a search: fewer say little, and IG's authors take no more
FOR_WORK = 0.8  # share of the time that is planned; estimates can be too low
START = 10.0  # seconds until several processes are ready, which a plan assumes
MARGIN = 1.5  # times the minutes that were found to be enough: another start is slower


@dataclass(frozen=True)
class Plan:
    """What is attacked, in this order; and why other attacks are not.

    Attributes:
        tasks: private batches.
        processes: that work at the same time.
        seconds: estimated, from the start of the processes to the end.
        not_tried: attack, defense (empty for all) and reason.
    """

    tasks: int
    processes: int
    seconds: float
    attempts: Sequence[Attempt]
    not_tried: Sequence[tuple[str, str, str]]


def different(named: str) -> list[str]:
    """Names with commas between them, each once, however its numbers are written."""
    found: dict[tuple[str, ...], str] = {}
    for name in separated(named):
        found.setdefault(tuple(map(plain, re.split("([:+])", name))), name)
    return [*found.values()]


def plain(value: str) -> str:
    """A number as Python writes it, and any other text as it is."""
    try:
        return str(float(value))
    except ValueError:
        return value


def in_order(named: str) -> list[str]:
    """The attacks that `attacks` names; `auto` is all, closed forms first, then `FIRST`, then the others."""
    attacks: dict[str, type[Attack]] = {name: find("attack", name) for name in known("attack")}
    rank = {name: place for place, name in enumerate(FIRST)}
    auto = sorted(attacks, key=lambda name: (not attacks[name].analytic, rank.get(name, len(rank)), name))
    names = different(named)
    return [*dict.fromkeys(each for name in names for each in (auto if name == "auto" else [name]))]


def make_plan(
    probe: Probe, named: Sequence[str], minutes: float, spent: Callable[[], float], most: int, processes: int
) -> Plan:
    """What the time is enough for.

    All closed forms and the first search are tried on as many tasks as they have time for. Then each further attack
    follows that has time for all of its steps on the same tasks, up to the first that has not; and what is left
    multiplies the steps of all searches.

    Args:
        named: attacks, in their order.
        minutes: for everything.
        spent: returns the seconds that have passed.
        most: the most tasks.
        processes: that work at the same time.

    Raises:
        InputError: there is no such attack, none can be used, or the time is too short for the least.
    """

    def left() -> float:
        return processes * ((60 * minutes - spent()) * FOR_WORK - start)

    start = START if processes > 1 else 0.0
    names, refused = iter(named), probe.refused
    before = len(refused)
    chosen: list[tuple[Attempt, Cost]] = []
    if read := [defense for defense, methods in probe.readers.items() if methods]:
        evenly = {defense: Under(1 / len(read)) for defense in read}
        cost = Cost(len(read) * probe.start, len(read) * probe.task + probe.reading)
        chosen.append((Attempt(LABELS, evenly, 0.0), cost))
    for found in (measured(probe, name) for name in names):
        chosen += [found] if found else []
        if found and found[0].steps:
            break
    if all(attempt.attack == LABELS for attempt, _ in chosen):
        name, _, why = refused[before]
        raise InputError(f"no attack can be used in this setting; {name}: {without_options(why)}")
    capacity, fewest = left(), min(1.0, LEAST / (chosen[-1][0].steps or LEAST))
    if (needed := total(chosen, 1, fewest)) > capacity:
        last = chosen[-1][0]
        least = f"{LEAST} steps of {last.attack}" if last.steps else last.attack
        enough = ceil(MARGIN * (spent() + (needed / processes + start) / FOR_WORK) / 6) / 10
        raise InputError(
            f"{minutes:g} minutes are too few for {least} on one batch under every "
            f"defense; give more --minutes, such as {enough:g}, fewer defenses, or a smaller --size."
        )
    tasks = next((t for t in range(most, 0, -1) if total(chosen, t) <= capacity), 1)
    late: list[str] = []
    for name in names:
        found = None if late else measured(probe, name)
        if found and total([*chosen, found], tasks) <= left():
            chosen.append(found)
        elif found or late:
            late.append(name)
    factor = max(fewest, factor_within(chosen, tasks, left()))
    attempts = [with_steps(attempt, cost, tasks, factor) for attempt, cost in chosen]
    reason = f"not reached: the attacks before it take the {minutes:g} minutes"
    return Plan(
        tasks,
        processes,
        start + sum(attempt.seconds for attempt in attempts) / processes,
        attempts,
        [*refused, *((name, EVERY, reason) for name in late)],
    )


def total(chosen: Iterable[tuple[Attempt, Cost]], tasks: int, factor: float = 1.0) -> float:
    """Seconds of one process."""
    return sum(cost.of(tasks, factor) for _, cost in chosen)


def factor_within(chosen: Sequence[tuple[Attempt, Cost]], tasks: int, seconds: float) -> float:
    """How many times their steps all searches can take within so many seconds of one process."""
    search = tasks * sum(cost.search for _, cost in chosen)
    return (seconds - total(chosen, tasks, 0.0)) / search if search else 1.0


def with_steps(attempt: Attempt, cost: Cost, tasks: int, factor: float) -> Attempt:
    """The attempt with so many times its steps, up to `MOST`, and the seconds that it then takes."""
    now = {d: min(max(MOST, how.steps), round(factor * how.steps)) for d, how in attempt.under.items()}
    shares = {d: how.share * (now[d] / how.steps if how.steps else 1.0) for d, how in attempt.under.items()}
    times = sum(shares.values())
    under = {d: replace(how, steps=now[d], share=shares[d] / times) for d, how in attempt.under.items()}
    return replace(attempt, under=under, seconds=cost.of(tasks, times))
