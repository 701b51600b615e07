"""The page of models, and timm's families on it."""

from functools import partial
from pathlib import Path

import pytest

from tests.zoo.__main__ import line_of, said
from tests.zoo.check import outcome
from tests.zoo.families import FAMILIES
from tests.zoo.odd import ODD
from victims.by_name import of_timm

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text()


def test_the_page_has_a_line_for_every_model_and_none_is_wrong():
    for name, odd in ODD.items():
        assert f"| {name} | {'Refused: ' if odd.refused else 'Runs ('}" in PAGE, "run: make models"
    for family in FAMILIES:
        assert f"| {line_of(family)} | " in PAGE, "run: make models"
    assert "| WRONG" not in PAGE


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore")
def test_a_family_runs_right_or_is_refused_as_the_page_says(family):
    name, size = FAMILIES[family]
    shape = (3, size, size)
    found = outcome(partial(of_timm, name, image_shape=shape, num_classes=10), shape=shape, mode="eval")
    assert f"| {line_of(family)} | {said(found).partition(':')[0]}" in PAGE
