"""What every attack and defense in the folders must keep to; `check` tries the same contracts on others."""

from collections.abc import Callable

import pytest

from attacks.base import Attack
from attacks.ig import IG
from benchmark.check import attack as contracts
from benchmark.check import defense as of_defense
from benchmark.check.attack_case import Case
from benchmark.check.command import name_of
from benchmark.check.defense import in_order, together
from benchmark.registry import registered
from benchmark.tasks.capture import Task

ATTACKS = registered("attack")
DEFENSES = in_order()
REFUSES = {"idlg": "precode"}  # it needs features that are never negative; those of a bottleneck can be negative
SEARCH = [method for method in ATTACKS.values() if contracts.searches_a_generator(method)]

every_attack = pytest.mark.parametrize("method", ATTACKS.values(), ids=ATTACKS.keys())


@pytest.fixture
def make() -> Callable[..., Attack]:
    return lambda method, *dtype, **options: Case(method).make(*dtype, **options)


@pytest.fixture
def capture(method: type[Attack]) -> Callable[..., Task]:
    """Captures tasks that the method is made for."""
    return Case(method).capture


@every_attack
@pytest.mark.parametrize("contract", contracts.CONTRACTS, ids=name_of)
def test_every_attack(contract, method):
    contract(Case(method))


@pytest.mark.parametrize("method", SEARCH, ids=lambda method: method.name)
def test_every_attack_that_searches_a_generator(method):
    contracts.a_generator_of_larger_images_is_searched_at_any_size(Case(method))


def test_every_attack_declares_its_own_name():
    assert {name: method.name for name, method in ATTACKS.items()} == {name: name for name in ATTACKS}


def test_an_attack_that_declares_no_name_has_its_dotted_path():
    class Mine(IG):
        pass

    assert Mine.name == f"{__name__}.Mine"
    assert Mine().name == Mine.name


# Under every defense.


@pytest.mark.parametrize(
    ("method", "text"),
    [
        *(
            pytest.param(method, together(REFUSES.get(name)), id=f"{name}-all")
            for name, method in ATTACKS.items()
            if not method.analytic
        ),
        *(pytest.param(IG, use, id=f"ig-{use}") for defense in DEFENSES.values() for use in defense.examples),
    ],
)
def test_steps_change_the_variables_under_a_defense(method, text):
    contracts.steps_change_the_variables_under_a_defense(Case(method), text)


@pytest.mark.parametrize("contract", of_defense.CONTRACTS, ids=name_of)
@pytest.mark.parametrize("name", DEFENSES)
def test_every_defense(contract, name):
    contract(of_defense.Case(name))


@pytest.mark.parametrize("name", DEFENSES)
def test_examples_of_a_defense_have_its_name(name):
    assert {use.partition(":")[0] for use in DEFENSES[name].examples} == {name}


SURROGATES = [(name, surrogate) for name in DEFENSES for surrogate in of_defense.Case(name).surrogates]


@pytest.mark.parametrize(("name", "surrogate"), SURROGATES)
def test_a_surrogate_depends_only_on_the_update(name, surrogate):
    of_defense.a_surrogate_depends_only_on_the_update(of_defense.Case(name), surrogate)


USES = [(name, use, surrogate) for name, surrogate in SURROGATES for use in of_defense.Case(name).uses]


@pytest.mark.parametrize(("name", "use", "surrogate"), USES)
def test_a_surrogate_brings_the_true_gradient_no_further_from_the_update(name, use, surrogate):
    case = of_defense.Case(name)
    of_defense.a_surrogate_brings_the_true_gradient_no_further_from_the_update(case, use, surrogate)
