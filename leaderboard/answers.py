"""What the record of several tracks answers: plain functions of their boards; `leaderboard.sentences` says them.

Everything is of attacks that have a place on the board, by their PSNR: means over images, 95 % intervals and tests by
Student's t over batches, and shares of images (`leaderboard.statistics`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from leaderboard.board import Entry, EntryWithRows, places
from leaderboard.differences import difference, difference_by_image
from leaderboard.statistics import BETTER, Score, could_be_best, verdicts

Board = Sequence[EntryWithRows]
"""The entries of one track, the best first, each with its rows."""

HELD = 0.15
"""A defense holds where for every attack the interval of the share of recognized images ends here or below. The number
of images sets it: of 24 single images none is recognized."""

FLOOR = "neither above the mean image"
"""In place of a verdict: two attacks are not compared that may have rebuilt nothing."""

HOLDS, FAILS, OPEN = "holds", "does not hold", "is not decided"
LEAKS = "leaves few or no images recognized, and still leaks"
IDLE = "has nothing to hold back"
UNJUDGED = "is not judged, as recognized images need the LPIPS of squeeze"
UNCONTROLLED = "is not judged, as its track has no mean image to compare with"
UNTRIED = "is not judged, as no attack was tried on enough batches both with and without it"


class Comparison(NamedTuple):
    """Of two attacks on a track, or of one attack each on two tracks.

    Attributes:
        difference: of the PSNR, other minus base, paired over images.
        verdict: on `other`, or why there is none.
    """

    base: Entry
    other: Entry
    difference: Score
    verdict: str


class Share(NamedTuple):
    """The largest share of images that attacks recognize, those that recognize as many, and of how many attacks."""

    attacks: Sequence[str]
    recognized: Score
    among: int


class Defended(NamedTuple):
    """A defense on its track, beside the track that differs in nothing else.

    Attributes:
        verdict: whether it holds, see `holds`.
        above: the attacks that are shown above the mean image behind it, the best first.
        behind, without: the most that is recognized with and without the defense; None where that is not known.
        change: of the strongest attack; None where one of the tracks has none, or they share no image.
    """

    defense: str
    track: str
    verdict: str
    above: Sequence[Comparison]
    behind: Share | None
    without: Share | None
    change: Comparison | None


Pair = tuple[EntryWithRows, EntryWithRows]
"""What is compared: a base, and another attack."""


def higher(differences: Sequence[Score | None]) -> list[str]:
    """Verdicts on differences of PSNR, after Holm's correction for them."""
    return verdicts(differences, True)


def compared(
    pairs: Sequence[Pair | None],
    minus: Callable[[EntryWithRows, EntryWithRows, str], Score | None] = difference,
    judge: Callable[[Sequence[Score | None]], list[str]] = higher,
) -> list[Comparison | None]:
    """Other minus base for each of several pairs; None for no pair, and for one without a common image.

    Args:
        judge: the verdicts on the differences; those of `higher` if not given.
    """
    differences = [minus(pair[1], pair[0], "psnr") if pair else None for pair in pairs]
    return [
        Comparison(pair[0][0], pair[1][0], d, word) if pair and d else None
        for pair, d, word in zip(pairs, differences, judge(differences), strict=True)
    ]


def attacks(board: Board) -> list[EntryWithRows]:
    """The attacks that have a place, the best first: the others answer nothing."""
    placed = zip(board, places([entry for entry, _ in board]), strict=True)
    return [pair for pair, place in placed if place]


def control(board: Board) -> EntryWithRows | None:
    """The mean image; None where the board does not have it."""
    return next((pair for pair in board if pair[0].control == "mean_image"), None)


def over_control(board: Board) -> list[Comparison]:
    """All attacks minus the mean image, which needs no update; verdicts are after Holm's correction for the attacks."""
    there = control(board)
    return [each for each in compared([(there, pair) for pair in attacks(board)]) if each] if there else []


def shown_above(board: Board) -> list[Comparison]:
    """The attacks that are shown above the mean image, the best first."""
    return [each for each in over_control(board) if each.verdict == BETTER]


def not_above(board: Board) -> set[str]:
    """The attacks that are not shown to be above the mean image; none where the board does not have it."""
    return {each.other.attack for each in over_control(board) if each.verdict != BETTER}


def above_control(found: Comparison, low: Collection[str]) -> Comparison:
    """A comparison of two attacks, with `FLOOR` for a verdict where neither is shown above the control.

    Args:
        low: see `not_above`.
    """
    floor = found.base.attack in low and found.other.attack in low
    return found._replace(verdict=FLOOR) if floor else found


def behind(board: Board) -> list[Comparison]:
    """All other attacks minus the first, and whether they may be the best."""
    ranked = attacks(board)
    pairs = [(ranked[0], other) for other in ranked[1:]]
    return [each for each in compared(pairs, judge=could_be_best) if each]


def gains(board: Board, kinds: Mapping[str, str]) -> dict[str, Comparison]:
    """What each kind of prior is worth on a track: the best attack with it minus the best attack without a prior.

    Verdicts are after Holm's correction for all pairs of an attack with a prior and one without, for the best of each
    are chosen by the same data.

    Args:
        kinds: of prior, by attack; those without one are missing.
    """
    ranked = attacks(board)
    base = [pair for pair in ranked if pair[0].attack not in kinds]
    others = [pair for pair in ranked if pair[0].attack in kinds]
    found, low = dict[str, Comparison](), not_above(board)
    for each in compared([(plain, other) for other in others for plain in base]):
        if each and each.base is base[0][0]:
            found.setdefault(kinds[each.other.attack], above_control(each, low))  # the best of its kind is first
    return found


def changes(pairs: Sequence[tuple[Board, Board]]) -> list[Comparison | None]:
    """The strongest attack of another track minus that of a base track, over the images of both, for pairs of tracks.

    Verdicts are after Holm's correction for these pairs, not for the choice of the strongest attacks by the same data.
    """
    bests = [(attacks(base), attacks(other)) for base, other in pairs]
    return compared([(base[0], other[0]) if base and other else None for base, other in bests], difference_by_image)


def defended(pairs: Sequence[tuple[str, str, str]], boards: Mapping[str, Board]) -> list[Defended]:
    """What each defense does.

    Args:
        pairs: a defense, its track, and the track that differs in nothing else.
    """
    found = changes([(boards[base], boards[track]) for _, track, base in pairs])
    return [
        Defended(
            defense,
            track,
            holds(boards[track], boards[base]),
            shown_above(boards[track]),
            most(boards[track]),
            most(boards[base]),
            change,
        )
        for (defense, track, base), change in zip(pairs, found, strict=True)
    ]


def better_behind(pairs: Sequence[tuple[str, str, str]], boards: Mapping[str, Board]) -> list[tuple[str, Comparison]]:
    """The attacks that are better behind a defense than without it, and its track.

    Verdicts are after Holm's correction for all attacks and defenses.

    Args:
        pairs: as `defended`.
    """
    found: list[tuple[str, Pair]] = []
    for _, track, base in pairs:
        without = {entry.attack: (entry, rows) for entry, rows in attacks(boards[base])}
        found += [(track, (without[e.attack], (e, rows))) for e, rows in attacks(boards[track]) if e.attack in without]
    judged = compared([pair for _, pair in found], difference_by_image)
    return [(track, each) for (track, _), each in zip(found, judged, strict=True) if each and each.verdict == BETTER]


def tried(board: Board) -> list[Entry]:
    """The attacks that were tried on enough batches, also where every image diverged: such a defense holds."""
    return [entry for entry, _ in board if entry.control == "none" and not entry.too_few]


def recognized_by(board: Board) -> list[tuple[Entry, Score]]:
    """Every attack with its share of recognized images, the largest first; nothing where one has no such share."""
    found = [(entry, entry.recognized) for entry in tried(board) if entry.recognized]
    return sorted(found, key=lambda pair: -pair[1].mean) if len(found) == len(tried(board)) else []


def most(board: Board) -> Share | None:
    """The largest share of recognized images; None where one has no such share."""
    found = recognized_by(board)
    if not found:
        return None
    _, largest = found[0]
    return Share([entry.attack for entry, share in found if share.mean == largest.mean], largest, len(found))


def holds(board: Board, base: Board) -> str:
    """Whether a defense leaves images unrecognized, by all attacks on its track and on that without it.

    It does not hold where an attack is shown above the mean image: then something of the image leaks.
    """
    if not tried(board) or not tried(base):
        return UNTRIED
    shares, without = ([share for _, share in recognized_by(of)] for of in (board, base))
    if not shares or not without:
        return UNJUDGED
    if all(share.high <= HELD for share in without):
        return IDLE
    if all(share.high <= HELD for share in shares):
        if control(board) is None:
            return UNCONTROLLED
        return LEAKS if shown_above(board) else HOLDS
    return FAILS if any(share.low > HELD for share in shares) else OPEN
