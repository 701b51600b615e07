"""What papers say of two methods: what is judged, in which words, and beside which numbers."""

import re

import numpy as np
import pytest
from scipy import stats

from leaderboard.board import entries_with_rows
from leaderboard.orderings import Claim, claims, judgments, not_judged, published, reasons, summary, table
from leaderboard.reported import reported
from leaderboard.statistics import UNSHOWN

BASE = np.linspace(15, 25, 8)
NOISE = np.random.default_rng(0).normal(0, 0.1, 8)


@pytest.fixture
def board(row):
    def make(**scores):
        return entries_with_rows(
            row(attack=attack, task=f"t{image}", image=f"i{image}", batch_size=1, psnr=float(psnr))
            | {"control": "mean_image" if attack == "mean_image" else "none"}
            for attack, each in scores.items()
            for image, psnr in enumerate(each)
        )

    return make


def claim(stronger="gias", weaker="ig", paper="one", **others):
    return Claim(paper=paper, stronger=stronger, weaker=weaker, setting="somewhere", **others)


def test_a_claim_holds_shows_no_difference_or_is_reversed_on_each_track(board):
    boards = {
        "holds": board(ig=BASE, gias=BASE + 2 + NOISE),
        "equal": board(ig=BASE, gias=BASE + NOISE - NOISE.mean()),
        "reversed": board(ig=BASE, gias=BASE - 2 + NOISE),
        "without": board(ig=BASE),
        "few": board(ig=BASE[:4], gias=BASE[:4] + 2),
    }
    found = [claim(reason="a weak prior"), claim("gias", "gi")]
    answers = judgments(found, boards)
    columns = table(answers, []).columns
    assert columns["claim"] == ["gias over ig"] * 3
    assert dict(zip(columns["track"], columns["verdict"], strict=True)) == {
        "holds": "holds",
        "equal": "no difference shown",
        "reversed": "reversed",
    }
    values = 2 + NOISE
    low, high = stats.t.interval(0.95, 7, values.mean(), stats.sem(values))
    assert columns["difference"][0] == f"{values.mean():+.2f} dB [{low:+.2f}, {high:+.2f}]"
    assert columns["as published"] == ["one, somewhere", "", ""]
    assert reasons(found, answers) == ["gias over ig: a weak prior"]
    assert reasons(found, answers[:1]) == []  # it holds
    assert reasons([claim()], judgments([claim()], boards)) == []  # nothing was found
    assert reasons([claim(weaker="gi", reason="as strong")], answers) == ["gias over gi: as strong"]  # on no track
    assert summary(answers) == "Of 3 comparisons, 1 holds, 1 shows no difference and 1 is reversed."
    assert summary([answers[0], answers[0]]) == "Of 2 comparisons, 2 hold."
    assert summary(answers[:1]) == "Of 1 comparison, 1 holds."
    assert summary([]) == ""
    assert not_judged(found, answers) == "Not judged, because no track has both methods: gias over gi."
    assert not_judged(found[:1], answers) == ""


def test_a_claim_is_not_judged_where_neither_method_is_above_the_mean_image(board):
    boards = {
        "easy": board(ig=BASE, gias=BASE + 2 + NOISE, mean_image=BASE - 5),
        "hard": board(ig=BASE, gias=BASE + 2 + NOISE, mean_image=BASE + 5),
    }
    answers = judgments([claim(reason="a weak prior")], boards)
    assert table(answers, []).columns["verdict"] == ["holds", "neither above the mean image"]
    assert summary(answers) == "Of 1 comparison, 1 holds. In 1 more neither is shown above the mean image."
    assert reasons([claim(reason="a weak prior")], answers) == [], "it holds wherever it is judged"
    assert summary(answers[1:]) == "In 1 comparison neither is shown above the mean image."


def test_verdicts_are_corrected_for_the_claims_of_one_paper_alone(board):
    unit = NOISE - NOISE.mean()
    better = BASE + 1 + unit / stats.sem(unit) / stats.t.isf(0.03 / 2, 7)  # p = .03
    boards = {"track": board(ig=BASE, gias=better, gi=BASE + NOISE[::-1] - NOISE.mean())}
    alone, _ = judgments([claim(), claim("gi", "ig", paper="another")], boards)
    assert alone.found.verdict == "better"
    together, _ = judgments([claim(), claim("gi", "ig")], boards)
    assert together.found.verdict == UNSHOWN


def test_published_numbers_stand_in_the_order_of_the_claim():
    numbers = reported()
    assert published(claim(table="gias-table1"), numbers) == "15.58 > 13.78 dB"
    assert published(claim("igims", "gias", table="igims-table1"), numbers).startswith("26.33 > 24.41, 25.00 > 23.27")
    assert published(claim(), numbers) == ""


def test_a_table_that_a_claim_names_has_numbers_that_say_so():
    numbers = reported()
    for each in claims():
        said = published(each, numbers)
        assert bool(said) == bool(each.table), each
        pairs = [pair.split(" > ") for pair in said.removesuffix(" dB").split(", ") if pair]
        assert all(float(a) > float(b) for a, b in pairs), each


def test_a_claim_without_numbers_names_its_figure_or_table():
    """So that it can be looked up."""
    assert not [each for each in claims() if not each.table and not re.search(r"(figures?|table) \d", each.setting)]
