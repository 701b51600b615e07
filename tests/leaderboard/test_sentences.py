"""The answers in words: every sentence has its numbers, and none is made of nothing."""

import numpy as np
import pytest

from leaderboard.board import entries_with_rows
from leaderboard.document import Heading, Items, Table
from leaderboard.said import defenses, priors, settings, strongest

BASE = np.linspace(25, 30, 24)
NOISE = np.random.default_rng(0).normal(0, 0.1, 24)
NOISE -= NOISE.mean()


@pytest.fixture
def board(row):
    def make(**scores):
        return entries_with_rows(
            row(attack=attack, task=f"t{image}", image=f"i{image}", batch_size=1, psnr=float(psnr), lpips=0.2)
            for attack, each in scores.items()
            for image, psnr in enumerate(each)
        )

    return make


def sentences(blocks):
    return [item for block in blocks if isinstance(block, Items) for item in block.items]


def test_the_strongest_attacks_in_words(board):
    said = sentences(strongest({"easy": board(ig=BASE, gi=BASE + NOISE - 0.001, gias=BASE - 9 - NOISE)}))
    assert said == ["easy: ig, 27.50 dB [26.85, 28.15], 24 images, 3 attacks; tied with gi (-0.00 dB [-0.04, +0.04])."]


def test_the_worth_of_priors_in_words_and_as_a_table(board):
    boards = {"easy": board(ig=BASE, gias=BASE + 2 + NOISE), "hard": board(ig=BASE, gias=BASE - 2 + NOISE)}
    found = priors(boards, {name: {"gias": "generator"} for name in boards})
    assert sentences(found) == ["Generator: better on easy (+2.0 dB); worse on hard (-2.0 dB)."]
    (table,) = (block for block in found if isinstance(block, Table))
    assert table.columns["track"] == ["easy", "hard"]
    assert table.columns["generator"][1].startswith("gias - ig: -2.00 dB [-2.04, -1.96]")
    assert table.columns["generator"][1].endswith("24 images, worse")


def test_defenses_in_words(board):
    boards = {"plain": board(ig=BASE), "noisy": board(ig=BASE - 15 + NOISE)}
    (said,) = sentences(defenses(boards, [("noise:0.01", "noisy", "plain")]))
    assert said.startswith(
        "noise:0.01 (noisy) holds: at most 0 % [0, 14] of the images are recognized (ig; 1 attacks), without it "
        "100 % [86, 100] (ig; 1 attacks). The strongest attack (ig; without it ig) "
        "rebuilds less: -15.00 dB "
    )


def test_settings_in_words_and_those_that_are_not_recorded_left_out(board):
    boards = {"one": board(ig=BASE), "four": board(gi=BASE - 2 + NOISE)}
    (said,) = sentences(settings(boards, {"A larger batch": ("one", "four"), "Training": ("one", "trained")}))
    assert said.startswith(
        "A larger batch leaks less: -2.00 dB [-2.04, -1.96] from one (ig, 27.50 dB [26.85, 28.15]) to four (gi, "
    )
    assert said.endswith("paired over 24 images in 24 groups of batches that share images.")


def test_no_heading_stands_above_nothing():
    assert not [*strongest({}), *priors({}, {}), *defenses({}, []), *settings({}, {"Training": ("a", "b")})]
    assert Heading not in map(type, strongest({"empty": []}))
