"""What the record answers, in words: sentences with their numbers, below headings."""

from collections.abc import Mapping, Sequence

from leaderboard.answers import (
    HELD,
    Board,
    Change,
    Gain,
    attacks,
    behind,
    changes,
    gains,
    holds,
    recognized_by,
)
from leaderboard.document import Block, Heading, Items, Text
from leaderboard.harm import NOTES
from leaderboard.statistics import Score
from leaderboard.table import NOTHING, Table

# The words of `leaderboard.statistics.verdicts` for what a higher PSNR means here.
GAINED = {"better": "better", "tie": "no difference shown", "worse": "worse"}
LEAKS = {"better": "leaks more", "tie": "shows no difference", "worse": "leaks less"}
REBUILDS = {"better": "rebuilds more", "tie": "shows no difference", "worse": "rebuilds less"}

SHARE = f"{100 * HELD:.0f} %"

Boards = Mapping[str, Board]
"""By track."""


def strongest(boards: Boards) -> list[Block]:
    """The strongest attack of each track, with ties."""
    return answer(
        "The strongest attack of each track",
        [strongest_sentence(track, board) for track, board in boards.items() if attacks(board)],
        "Tied: no difference at p < .05 after Holm's correction for all pairs of a track's attacks.",
    )


def strongest_sentence(track: str, board: Board) -> str:
    """Of a track with attacks."""
    ranked = attacks(board)
    best = ranked[0][0]
    assert best.psnr, "it has a place"
    tied = [f"{other.entry.attack} ({signed(other.difference)})" for other in behind(board) if other.verdict == "tie"]
    said = f"{track}: {best.attack}, {decibels(best.psnr)}, {best.n} images, {len(ranked)} attacks"
    return f"{said}; tied with {', '.join(tied)}." if tied else f"{said}."


def priors(boards: Boards, kinds: Mapping[str, Mapping[str, str]]) -> list[Block]:
    """What each kind of prior is worth over none.

    Args:
        kinds: of prior, by track and attack.
    """
    worth = {track: gains(board, kinds[track]) for track, board in boards.items()}
    order = dict.fromkeys(kind for by_kind in worth.values() for kind in by_kind)
    by_kind = {kind: {track: gain[kind] for track, gain in worth.items() if kind in gain} for kind in order}
    said = answer(
        "What a prior is worth",
        [gain_sentence(kind, gain) for kind, gain in by_kind.items()],
        "The best attack with such a prior minus the best attack with none, after Holm's correction for all pairs of "
        "an attack with a prior and one without on a track.",
    )
    return [*said, gain_table(by_kind)] if said else []


def gain_sentence(kind: str, by_track: Mapping[str, Gain]) -> str:
    """Of one kind of prior on all tracks where it was used, those first where it gains."""
    parts = []
    for verdict, words in GAINED.items():
        found = [
            f"{track} ({gain.difference.mean:+.1f} dB)" for track, gain in by_track.items() if gain.verdict == verdict
        ]
        parts += [f"{words} on {', '.join(found)}"] if found else []
    return f"{kind[:1].upper()}{kind[1:]}: {'; '.join(parts)}."


def gain_table(by_kind: Mapping[str, Mapping[str, Gain]]) -> Table:
    """A line for each track, a column for each kind of prior."""

    def cell(gain: Gain | None) -> str:
        if gain is None:
            return NOTHING
        d = gain.difference
        return f"{gain.best.attack} - {gain.base.attack}: {signed(d)}, {d.n} images, {GAINED[gain.verdict]}"

    tracks = list(dict.fromkeys(track for gains in by_kind.values() for track in gains))
    return Table(
        "", {"track": tracks, **{kind: [cell(g.get(track)) for track in tracks] for kind, g in by_kind.items()}}
    )


def defenses(boards: Boards, pairs: Sequence[tuple[str, str, str]]) -> list[Block]:
    """Which defenses hold against an attacker who adapts to them.

    Args:
        pairs: a defense, its track, and the track that differs in nothing else.
    """
    compared = changes([(boards[base], boards[track]) for _, track, base in pairs])
    said = [
        defense_sentence(defense, track, boards[track], boards[base], change)
        for (defense, track, base), change in zip(pairs, compared, strict=True)
        if change
    ]
    return answer(
        "Which defenses hold",
        said,
        f"A defense holds where for every attack the interval of the share of recognized images ends at {SHARE} or "
        "below, and does not where that of one lies above; 8 batches are too few to show that it holds. Recognized: "
        f"{NOTES['recognized']}. The attacker knows the defense and adapts to it. Differences are between the "
        "strongest attacks with and without the defense, on the same images, after Holm's correction for these "
        "defenses.",
    )


def defense_sentence(defense: str, track: str, board: Board, base: Board, change: Change) -> str:
    said = f"{defense} ({track}) {holds(board, base)}"
    for (entry, share), (other, without) in zip(recognized_by(board)[:1], recognized_by(base)[:1], strict=False):
        said += (
            f": at most {percent(share)} of the images are recognized ({entry.attack}; {len(attacks(board))} attacks), "
        )
        said += f"without it {percent(without)} ({other.attack}; {len(attacks(base))} attacks)"
    d, verdict = change.difference, REBUILDS.get(change.verdict, change.verdict)
    of = f"{change.other.attack}; without it {change.base.attack}"
    return f"{said}. The strongest attack ({of}) {verdict}: {signed(d)}, {d.n} images."


def settings(boards: Boards, pairs: Mapping[str, tuple[str, str]]) -> list[Block]:
    """How leakage changes with the setting.

    Args:
        pairs: a base track and another, by what differs.
    """
    there = {what: pair for what, pair in pairs.items() if boards.keys() >= {*pair}}
    compared = changes([(boards[base], boards[other]) for base, other in there.values()])
    said = [
        change_sentence(what, pair, change)
        for (what, pair), change in zip(there.items(), compared, strict=True)
        if change
    ]
    return answer(
        "Batch size, local steps, victim",
        said,
        "The strongest attack of each track, on the images that both tracks have, after Holm's correction for these "
        "comparisons. Budgets differ, see the tracks.",
    )


def change_sentence(what: str, tracks: tuple[str, str], change: Change) -> str:
    """
    Args:
        tracks: the base and the other.
    """
    base, other = (
        f"{track} ({entry.attack}, {decibels(entry.psnr)})"
        for track, entry in zip(tracks, (change.base, change.other), strict=True)
        if entry.psnr
    )
    d = change.difference
    groups = f"{d.n} images in {d.clusters} groups of batches that share images"
    verdict = LEAKS.get(change.verdict, change.verdict)
    return f"{what} {verdict}: {signed(d)} from {base} to {other}, paired over {groups}."


def answer(heading: str, said: Sequence[str], how: str) -> list[Block]:
    """A question, its answers and how they were computed; nothing where there are none."""
    return [Heading(3, heading), Items(said), Text(how)] if said else []


def decibels(score: Score) -> str:
    """`15.32 dB [14.90, 15.81]`."""
    return f"{score.mean:.2f} dB [{score.low:.2f}, {score.high:.2f}]"


def signed(score: Score) -> str:
    """`+5.32 dB [4.90, 5.81]`."""
    return f"{score.mean:+.2f} dB [{score.low:+.2f}, {score.high:+.2f}]"


def percent(score: Score) -> str:
    """`25 % [14, 40]`."""
    return f"{100 * score.mean:.0f} % [{100 * score.low:.0f}, {100 * score.high:.0f}]"
