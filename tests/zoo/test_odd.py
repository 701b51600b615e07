"""Wrapped and odd models: each has the gradient of its own training step on every path, or is refused with a cure."""

import re

import pytest

from tests.zoo.check import built, outcome
from tests.zoo.net import SHAPE
from tests.zoo.odd import ODD

RUNS = [name for name, odd in ODD.items() if not odd.refused]
REFUSED = [name for name, odd in ODD.items() if odd.refused]


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.filterwarnings("ignore")
def test_every_path_has_the_gradient_of_the_models_own_training_step(name):
    odd = ODD[name]
    found = outcome(odd.make, shape=SHAPE, mode=odd.mode, dtype=odd.dtype, reference=odd.reference)
    assert not found.refused
    assert all(error <= odd.tolerance for error in found.errors.values()), found.errors


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_run_is_refused_in_one_line_and_its_cure_works(name):
    odd = ODD[name]
    said = outcome(odd.make, shape=SHAPE, mode=odd.mode, dtype=odd.dtype).refused
    assert re.search(odd.refused, said)
    assert "\n" not in said
    cured = outcome(lambda: odd.cure(built(odd.make, None)), shape=SHAPE, mode=odd.mode)
    assert not cured.refused
    assert all(error <= odd.tolerance for error in cured.errors.values()), cured.errors
