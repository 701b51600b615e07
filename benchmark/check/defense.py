"""The contracts of every defense, on small tasks of an attacker who adapts."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch

from attacks.engine.distances import cosine
from attacks.engine.requirements import check_surrogate
from benchmark.check.fails import require
from benchmark.check.small import OTHER, defended_task
from benchmark.registry import find, open_defense, registered
from benchmark.tasks.capture import Client
from benchmark.tasks.effect import check_effect
from defenses.base import Defense
from victims.victim import gradient, norm

ACTS = ("model", "class_counts", "gradient_fn", "__call__")
"""The places where a client can act, in its order."""


def acts_at(defense: type[Defense]) -> int:
    return next(place for place, method in enumerate(ACTS) if method in vars(defense))


def in_order() -> dict[str, type[Defense]]:
    """Every defense of this suite, in the order in which a client comes to it."""
    return dict(sorted(registered("defense").items(), key=lambda pair: (acts_at(pair[1]), pair[0])))


def together(refused: str | None = None) -> str:
    """A chain of all defenses, mild ones, but of one that an attack refuses."""
    return "+".join(defense.examples[0] for name, defense in in_order().items() if name != refused)


@dataclass(frozen=True)
class Case:
    """A defense by its name, or its dotted path."""

    name: str

    @property
    def kind(self) -> type[Defense]:
        return find("defense", self.name)

    @property
    def uses(self) -> list[str]:
        """Its examples, under this name."""
        return [":".join([self.name, *use.split(":")[1:]]) for use in self.kind.examples]

    @property
    def surrogates(self) -> list[str]:
        return ["", *self.kind.surrogates]


def it_has_examples_of_its_use(case: Case) -> None:
    """Two with different parameters, if it has any."""
    kind, uses = case.kind, case.uses
    count = 2 if inspect.signature(kind).parameters else 1
    fix = f"write examples = (...) in the class, {count} as DEFENSE= takes them"
    require(len(set(uses)) == len(uses) == count, f"it has {len(set(uses))} different examples; {fix}", kind)


def it_keeps_the_names_and_shapes_of_an_update(case: Case) -> None:
    """And its numbers are finite, under every example."""
    for use in case.uses:
        update = defended_task(use).observation.update
        wrong = [name for name, g in update.items() if not g.isfinite().all()]
        require(not wrong, f"{use} makes {', '.join(wrong[:3])} not finite", case.kind.__call__, case.kind)


def it_changes_what_a_client_sends(case: Case) -> None:
    """By more than rounding, as a run asks of it, and not to zeros; under every example that does not choose images."""
    for use in case.uses:
        task, defense = defended_task(use), open_defense(use)
        require(norm(task.observation.update) > 0, f"{use} sends zeros alone", case.kind.__call__, case.kind)
        if defense is None or defense.class_counts(len(task.images)):
            continue
        victim, client = task.observation.victim, Client(defense=defense)
        check_effect(
            client, [use], victim, lambda _: defended_task("none").observation.victim, task.images, task.labels
        )


def its_surrogates_are_functions_of_gradients(case: Case) -> None:
    """Under every example; some may leave out names, which are not matched then."""
    for use in case.uses:
        for surrogate in case.surrogates:
            observation = defended_task(use, surrogate=surrogate).observation
            estimate, received = observation.knowledge.estimate, {n: g[None] for n, g in observation.update.items()}
            assert estimate is not None, "the attacker adapts"
            check_surrogate(estimate, received, observation.victim)


def the_same_generator_gives_the_same_update(case: Case) -> None:
    """A second client with the same images sends the same."""
    for use in case.uses:
        one, other = (defended_task(use).observation.update for _ in range(2))
        same = all(torch.equal(g, other[name]) for name, g in one.items())
        require(same, f"{use} sends another update the second time; draw from the generator alone", case.kind)


def a_surrogate_depends_only_on_the_update(case: Case, surrogate: str) -> None:
    """Two clients with different images and parameters but the same update have the same surrogate.

    The first one's is asked before the second client acts, so that what a client leaves behind in its class shows.
    """
    mild, strong = case.uses[0], case.uses[-1]
    observation = defended_task(mild, surrogate=surrogate).observation
    victim = observation.victim
    received = {n: g[None] for n, g in observation.update.items()}
    generator = torch.Generator().manual_seed(0)
    dummy = {n: torch.randn(g.shape, generator=generator) for n, g in received.items()}
    first = observation.knowledge.estimate
    assert first is not None, "the attacker adapts"
    one = first(received, victim)(dummy)
    second = defended_task(strong, OTHER, surrogate=surrogate).observation.knowledge.estimate
    assert second is not None, "the attacker adapts"
    other = second(received, victim)(dummy)
    same = one.keys() == other.keys() and all(torch.equal(g, other[n]) for n, g in one.items())
    require(same, f"the surrogate {surrogate or 'estimate'} knows more than the update", case.kind.estimate)


def a_surrogate_brings_the_true_gradient_no_further_from_the_update(case: Case, use: str, surrogate: str) -> None:
    task = defended_task(use, surrogate=surrogate)
    victim, update, estimate = task.observation.victim, task.observation.update, task.observation.knowledge.estimate
    assert estimate is not None, "the attacker adapts"
    received = {n: g[None] for n, g in update.items()}
    true = {n: g[None] for n, g in gradient(victim, victim.normalize(task.images), task.labels).items()}
    dummy = estimate(received, victim)(true)
    require(dummy, f"the surrogate of {use} leaves nothing to match", case.kind.estimate)
    adaptive, plain = (float(cosine({n: of[n] for n in dummy}, received)) for of in (dummy, true))
    wrong = f"under {use} its distance from the update is {adaptive:.4g}, and {plain:.4g} without it"
    require(adaptive <= plain + 1e-6, wrong, case.kind.estimate)


CONTRACTS: list[Callable[[Case], None]] = [
    it_has_examples_of_its_use,
    it_keeps_the_names_and_shapes_of_an_update,
    it_changes_what_a_client_sends,
    its_surrogates_are_functions_of_gradients,
    the_same_generator_gives_the_same_update,
]
"""Those of the whole defense; the others are of an example or a surrogate."""
