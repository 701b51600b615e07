"""What the record of several tracks answers: plain functions of their boards; `leaderboard.said` has them in words.

Everything is of attacks that have a place on the board, by their PSNR: means over images, 95 % intervals and tests by
Student's t over batches (`leaderboard.statistics`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from leaderboard.board import Entry, EntryWithRows, difference, places
from leaderboard.harm import Sample
from leaderboard.rows import FlatRow
from leaderboard.statistics import Score, clustered_interval, joined, known, too_few, verdicts

Board = Sequence[EntryWithRows]
"""The entries of one track, the best first, each with its rows."""

HELD = 0.15
"""A defense holds where for every attack the interval of the share of recognized images ends here or below: of 24
single images none is recognized."""

HOLDS, FAILS, OPEN = "holds", "does not hold", "is not decided"
IDLE, UNKNOWN = "has nothing to hold back", "is not judged, as recognized images need the LPIPS of squeeze"


class Behind(NamedTuple):
    """An attack minus the strongest of its track, paired over images."""

    entry: Entry
    difference: Score
    verdict: str


class Gain(NamedTuple):
    """The best attack with a prior minus the best one without, paired over images."""

    best: Entry
    base: Entry
    difference: Score
    verdict: str


class Change(NamedTuple):
    """The strongest attack in another setting minus that in a base setting, paired over the images of both."""

    base: Entry
    other: Entry
    difference: Score
    verdict: str


def attacks(board: Board) -> list[EntryWithRows]:
    """The attacks that have a place, the best first: the others answer nothing."""
    placed = zip(board, places([entry for entry, _ in board]), strict=True)
    return [pair for pair, place in placed if place]


def behind(board: Board) -> list[Behind]:
    """All other attacks minus the first, after Holm's correction for all pairs, as it is first by the same data."""
    ranked = attacks(board)
    differences = [difference(pair, ranked[0], "psnr") for pair in ranked[1:]]
    words = verdicts(differences, True, chosen=True)
    return [Behind(pair[0], d, word) for pair, d, word in zip(ranked[1:], differences, words, strict=True) if d]


def gains(board: Board, kinds: Mapping[str, str]) -> dict[str, Gain]:
    """What each kind of prior is worth on a track.

    Verdicts are after Holm's correction for all pairs of an attack with a prior and one without, for the best of each
    are chosen by the same data.

    Args:
        kinds: of prior, by attack; those without one are missing.
    """
    ranked = attacks(board)
    base = [pair for pair in ranked if pair[0].attack not in kinds]
    others = [pair for pair in ranked if pair[0].attack in kinds]
    pairs = [(other, plain) for other in others for plain in base]
    differences = [difference(other, plain, "psnr") for other, plain in pairs]
    found: dict[str, Gain] = {}
    for (other, plain), d, word in zip(pairs, differences, verdicts(differences, True), strict=True):
        if d and not too_few(d) and plain is base[0]:
            found.setdefault(kinds[other[0].attack], Gain(other[0], plain[0], d, word))  # the best of its kind is first
    return found


def by_image(a: EntryWithRows, b: EntryWithRows) -> Score | None:
    """Mean difference a - b of the PSNR over the images that both attacked, also in different batches.

    Images that stood in one batch on either side are one cluster.
    """
    ours, theirs = (_of_images(samples) for _, samples in (a, b))
    values = {image: ours[image] - theirs[image] for image in sorted(ours.keys() & theirs.keys())}
    if not values:
        return None
    members = [(task, image) for _, rows in (a, b) for _, task, image in rows if image in values]
    names, task_of = joined(members), {image: task for task, image in members}
    (low, high), (other_low, other_high) = (entry.ranges["psnr"] for entry, _ in (a, b))
    labels = [names[task_of[image]] for image in values]
    return clustered_interval(list(values.values()), labels, (low - other_high, high - other_low))


def _of_images(samples: Mapping[Sample, FlatRow]) -> dict[str, float]:
    """The mean PSNR of every image over seeds and batches."""
    found = defaultdict(list)
    for (_, _, image), row in samples.items():
        if known(value := row.get("psnr")):
            found[image].append(value)
    return {image: sum(values) / len(values) for image, values in found.items()}


def changes(pairs: Sequence[tuple[Board, Board]]) -> list[Change | None]:
    """For each pair of a base and another track; None where one has no attack, or they share no image.

    Verdicts are after Holm's correction for these pairs, not for the choice of the strongest attacks by the same data.
    """
    bests = [(attacks(base)[:1], attacks(other)[:1]) for base, other in pairs]
    differences = [by_image(other[0], base[0]) if base and other else None for base, other in bests]
    return [
        Change(base[0][0], other[0][0], d, word) if d else None
        for (base, other), d, word in zip(bests, differences, verdicts(differences, True), strict=True)
    ]


def recognized_by(board: Board) -> list[tuple[Entry, Score]]:
    """Every attack with its share of recognized images, the largest first; nothing where one has no such share."""
    ranked = attacks(board)
    found = [(entry, entry.recognized) for entry, _ in ranked if entry.recognized]
    return sorted(found, key=lambda pair: -pair[1].mean) if len(found) == len(ranked) else []


def holds(board: Board, base: Board) -> str:
    """Whether a defense leaves images unrecognized, by all attacks on its track and on that without it."""
    shares, without = ([share for _, share in recognized_by(of)] for of in (board, base))
    if not shares or not without:
        return UNKNOWN
    if all(share.high <= HELD for share in without):
        return IDLE
    if all(share.high <= HELD for share in shares):
        return HOLDS
    return FAILS if any(share.low > HELD for share in shares) else OPEN
