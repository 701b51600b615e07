"""The answers in words: every sentence has its numbers, and none is made of nothing."""

import re

import numpy as np
import pytest
import torch

from benchmark.registry import open_defense
from leaderboard.board import entries_with_rows
from leaderboard.document import Heading, Items, Table, markdown
from leaderboard.sentences import defenses, priors, settings, strongest
from leaderboard.statistics import UNSHOWN

BASE = np.linspace(25, 30, 24)
NOISE = np.random.default_rng(0).normal(0, 0.1, 24)
NOISE -= NOISE.mean()


@pytest.fixture
def board(row):
    def make(first=0, **scores):
        return entries_with_rows(
            row(attack=attack, task=f"t{image}", image=f"i{image}", batch_size=1, psnr=float(psnr), lpips=0.2)
            | {"control": "mean_image" if attack == "mean_image" else "none"}
            for attack, each in scores.items()
            for image, psnr in enumerate(each, first)
        )

    return make


def sentences(blocks):
    return [item for block in blocks if isinstance(block, Items) for item in block.items]


def test_the_strongest_attacks_in_words(board):
    (said,) = sentences(strongest({"easy": board(ig=BASE, gi=BASE + NOISE - 0.001, gias=BASE - 9 - NOISE)}))
    assert said.startswith("easy: ig, 27.50 dB [26.85, 28.15], 24 images, 3 attacks; ")
    assert said.endswith("; these may be the best too: gi (-0.00 dB [-0.04, +0.04]).")


def test_where_no_attack_is_above_the_mean_image_none_is_said_to_be_the_strongest(board):
    floor = board(ig=BASE - 3 + NOISE, gias=BASE - 1 - NOISE, mean_image=BASE)
    boards = {"easy": board(ig=BASE, mean_image=BASE - 9 + NOISE), "hard": floor}
    easy, hard = sentences(strongest(boards))
    assert easy == "easy: ig, 27.50 dB [26.85, 28.15], 24 images, 1 attack."
    assert hard.startswith("hard: none of 2 attacks is shown above the mean image; the first by PSNR, gias, 26.50 dB [")
    assert hard.endswith("], 24 images, is -1.00 dB [-1.04, -0.96] from it.")
    (said,) = sentences(settings(boards, {"A trained victim": ("easy", "hard")}))
    assert said.endswith(", worse; on hard no attack is shown above the mean image.")
    (said,) = sentences(settings(boards, {"An untrained one": ("hard", "easy")}))
    assert said.endswith(", better.")


def test_the_worth_of_priors_in_words_and_as_a_table(board):
    boards = {"easy": board(ig=BASE, gias=BASE + 2 + NOISE), "hard": board(ig=BASE, gias=BASE - 2 + NOISE)}
    found = priors(boards, {name: {"gias": "generator"} for name in boards})
    assert sentences(found) == ["Generator: better on easy (+2.0 dB); worse on hard (-2.0 dB)."]
    (table,) = (block for block in found if isinstance(block, Table))
    assert table.columns["track"] == ["easy", "hard"]
    assert table.columns["generator"][1].startswith("gias - ig: -2.00 dB [-2.04, -1.96]")
    assert table.columns["generator"][1].endswith("24 images, worse")


def of_defense(**boards):
    """The sentence on a defense, and its line of the table."""
    found = defenses(boards, [("noise:0.01", "noisy", "plain")])
    (said,), (table,) = sentences(found), [block for block in found if isinstance(block, Table)]
    return said, {heading: cells[0] for heading, cells in table.columns.items()}


def test_defenses_in_words_and_as_a_table(board):
    said, line = of_defense(plain=board(ig=BASE), noisy=board(ig=BASE - 15 + NOISE, mean_image=BASE - 14))
    assert said == "noise:0.01 holds: 0 % [0, 14] of images are recognized with ig."
    assert (line["defense"], line["track"]) == ("noise:0.01", "noisy")
    assert (line["recognized"], line["recognized without it"]) == ("0 % [0, 14]", "100 % [86, 100]")
    assert line["shown above the mean image"] == "-"
    assert line["strongest attack, minus that without it"].startswith("ig - ig: -15.00 dB [")
    assert line["strongest attack, minus that without it"].endswith("], 24 images, worse")


def test_a_defense_that_leaves_no_image_recognized_does_not_hold_where_something_leaks(board):
    said, line = of_defense(plain=board(ig=BASE), noisy=board(ig=BASE - 15 + NOISE, mean_image=BASE - 17))
    assert said.startswith("noise:0.01 leaves few or no images recognized, and still leaks: 0 % [0, 14] of")
    assert line["shown above the mean image"].startswith("1 attack, ig by +2")


def test_attacks_that_recognize_as_many_images_are_named_together(board):
    plain = {"ig": BASE, "gias": BASE + 1, "dlg": BASE - 15}
    noisy = {name: psnr - 15 for name, psnr in plain.items()} | {"mean_image": BASE}
    said, _ = of_defense(plain=board(**plain), noisy=board(**noisy))
    assert said == "noise:0.01 holds: 0 % [0, 14] of images are recognized with each of 3 attacks."
    said, _ = of_defense(plain=board(**plain), noisy=board(**plain))
    best = "100 % [86, 100] of images are recognized with gias, ig, the best of 3 attacks by this share"
    assert said == f"noise:0.01 does not hold: {best}."


def test_attacks_that_are_better_behind_a_defense_are_named(board):
    boards = {"plain": board(ig=BASE), "noisy": board(ig=BASE + 2 + NOISE)}
    _, said = sentences(defenses(boards, [("noise:0.01", "noisy", "plain")]))
    assert said.startswith("noisy, ig - ig: +2.00 dB [")
    assert said.endswith("], 24 images, better.")


def test_to_noise_and_quantization_an_attacker_adapts_by_options_alone(capture):
    """As the section on defenses says, of the defenses on the board."""
    observation = capture(rate=None).observation
    received = {name: g[None] for name, g in observation.update.items()}
    dummy = {name: torch.randn(g.shape, generator=torch.Generator().manual_seed(0)) for name, g in received.items()}
    alone = set()
    for use in (
        "noise:0.01",
        "quantization:16",
        "clipping:0.2",
        "dp_sgd:1:0.001",
        "soteria:0.8",
        "sparsification:0.98",
    ):
        seen = open_defense(use).surrogate()({n: g / 9 for n, g in received.items()}, observation.victim)(dummy)
        if all(torch.equal(seen[name], g) for name, g in dummy.items()):
            alone.add(use)
    assert {"noise:0.01", "quantization:16"} <= alone
    assert not {"clipping:0.2", "dp_sgd:1:0.001"} & alone


def test_every_defense_has_a_sentence(board):
    """Also one behind which every image diverged, one that nothing is current of, and one on other images."""
    boards = {"plain": board(ig=BASE), "failed": board(ig=BASE - 20, mean_image=BASE - 14), "stale": []}
    for entry, _ in boards["failed"][1:]:
        object.__setattr__(entry, "diverged", entry.n)
    found = defenses(boards, [(f"of {track}", track, "plain") for track in ("failed", "stale")])
    said, (table,) = sentences(found), [block for block in found if isinstance(block, Table)]
    assert said[0].startswith("of failed holds: 0 % [0, 14] of images are recognized with ig")
    assert said[1] == "of stale is not judged, as no attack was tried on enough batches both with and without it."
    assert [
        line.startswith("not compared, as") for line in table.columns["strongest attack, minus that without it"]
    ] == [
        True,
        True,
    ]
    assert table.columns["recognized"][1] == "-"


def test_settings_in_words_and_those_that_are_not_recorded_left_out(board):
    boards = {"one": board(ig=BASE), "four": board(gi=BASE - 2 + NOISE)}
    (said,) = sentences(settings(boards, {"A larger batch": ("one", "four"), "Training": ("one", "trained")}))
    assert said.startswith("A larger batch, from one (ig, 27.50 dB [26.85, 28.15]) to four (gi, 25.50 dB [")
    assert said.endswith("]): -2.00 dB [-2.04, -1.96], 24 images in 24 independent groups of batches, worse.")


def test_a_comparison_of_too_few_images_says_so_in_a_whole_sentence(board):
    """Two tracks have places by eight images each and three of them in common."""
    boards = {"one": board(ig=BASE[:8]), "other": board(first=5, ig=BASE[:8] - 1 + NOISE[:8])}
    (said,) = sentences(settings(boards, {"A larger batch": ("one", "other")}))
    assert said.startswith("A larger batch, from one (ig, ")
    assert said.endswith("3 images in 3 independent groups of batches, too few batches (3; 5 needed).")


def test_one_vocabulary(board):
    """No word for a verdict stands in a section that is not one of the verdicts."""
    boards = {"a": board(ig=BASE, gias=BASE + NOISE), "b": board(ig=BASE, gias=BASE + 2 + NOISE)}
    kinds = {name: {"gias": "generator"} for name in boards}
    pairs = [("noise:0.01", "b", "a")]
    page = markdown(
        [*strongest(boards), *priors(boards, kinds), *defenses(boards, pairs), *settings(boards, {"x": ("a", "b")})]
    )
    assert not re.search(r"\b(tie[ds]?|reversed|leaks (more|less)|rebuilds)\b", page)
    assert UNSHOWN in page


def test_no_heading_stands_above_nothing():
    assert not [*strongest({}), *priors({}, {}), *defenses({}, []), *settings({}, {"Training": ("a", "b")})]
    assert Heading not in map(type, strongest({"empty": []}))
