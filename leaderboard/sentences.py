"""What the record answers, in words: sentences with their numbers, below headings."""

from collections.abc import Mapping, Sequence
from math import isnan

from leaderboard.answers import (
    HELD,
    Board,
    Comparison,
    Defended,
    Share,
    attacks,
    behind,
    better_behind,
    changes,
    defended,
    gains,
    over_control,
)
from leaderboard.board import Entry
from leaderboard.document import Block, Heading, Items, Text
from leaderboard.harm import NOTES
from leaderboard.statistics import BETTER, EXCLUDED, MAYBE, UNSHOWN, VERDICTS, Score
from leaderboard.table import NOTHING, Table

Boards = Mapping[str, Board]
"""By track."""


SINGLE = "An interval is not corrected for other comparisons: it can exclude 0 although the verdict is '{}'."
WORDS = (
    "Better and worse are verdicts at p < .05 after Holm's correction for the comparisons that each section states, "
    f"and mean a higher and a lower PSNR. '{UNSHOWN.capitalize()}' does not say that two attacks are equal. "
    f"{SINGLE.format(UNSHOWN)} The mean image is that of the training images and needs no update: an attack that is "
    "not above it may have rebuilt nothing. PSNR favors gray pictures; see SSIM, LPIPS and the pictures too."
)
SCOPE = (
    "{victims}. From the network convnet, which has no global pooling, attacks find more than from the other victims "
    "here, which are also deeper. Every track has one draw of weights, and tracks of one data "
    "set and batch size have the same images: an answer on several of them is not several independent answers. "
    "Intervals are over images alone; other weights, starts and tuned options would move the numbers further, and so "
    "does rounding on another processor: a single task of gias by several dB."
)
BEST = (
    f"'{EXCLUDED.capitalize()}' is a verdict at p < .025, one-sided, after Bonferroni's correction for the other "
    "attacks: on each track by itself, with a probability of at least 97.5 % where means over batches are about "
    f"normal, the one of its attacks that is truly the best, by PSNR, is the first or one of those that '{MAYBE}'. "
    "They need not equal the first. "
    f"{SINGLE.format(MAYBE)}"
)

PAPERS = (
    "What papers say of two methods, each in its own setting, compared with the tracks. A pair "
    "can have another verdict here than above: a claim was fixed beforehand and is corrected for the claims of its "
    "paper on a track, while the strongest attacks are asked for among all that a track has."
)

REASONS = (
    "Why a claim does not hold everywhere, where that is known, and what was measured for claims that no track can "
    "judge: runs with the tuned options and other budgets, batches or images. These runs are not in the record; their "
    "commands are in leaderboard/orderings.yaml. Differences are as above, without correction."
)

UNPAIRED = "not compared, as one of the tracks has no attack with a place, or they share no image"


def section(heading: str, sentences: Sequence[str], how: str, *tables: Table) -> list[Block]:
    """A question, its answers and how they were computed; nothing where there are none."""
    return [Heading(3, heading), Items(sentences), Text(how), *tables] if sentences else []


def strongest(boards: Boards) -> list[Block]:
    """The strongest attack of each track, with the others that may be the strongest."""
    ranked = {track: attacks(board) for track, board in boards.items()}
    return section(
        "The strongest attack of each track",
        [strongest_sentence(track, boards[track], found) for track, found in ranked.items() if found],
        BEST,
    )


def strongest_sentence(track: str, board: Board, ranked: Board) -> str:
    """
    Args:
        ranked: the attacks of the board, the best first.
    """
    (best, _), among = ranked[0], count(len(ranked), "attack")
    said = f"{best.attack}, {best.psnr and decibels(best.psnr)}, {count(best.psnr.n if best.psnr else 0, 'image')}"
    if none_above(board):
        away = signed(over_control(board)[0].difference)
        return f"{track}: none of {among} is shown above the mean image; the first by PSNR, {said}, is {away} from it."
    maybe = [f"{other.other.attack} ({signed(other.difference)})" for other in behind(board) if other.verdict == MAYBE]
    instead = f"; these may be the best too: {', '.join(maybe)}" if maybe else ""
    return f"{track}: {said}, {among}{instead}."


def none_above(board: Board) -> bool:
    """Whether the board has the mean image and none of its attacks is shown above it."""
    found = over_control(board)
    return bool(found) and all(each.verdict != BETTER for each in found)


def priors(boards: Boards, kinds: Mapping[str, Mapping[str, str]]) -> list[Block]:
    """What each kind of prior is worth over none.

    Args:
        kinds: of prior, by track and attack.
    """
    worth = {track: gains(board, kinds[track]) for track, board in boards.items()}
    order = dict.fromkeys(kind for by_kind in worth.values() for kind in by_kind)
    by_kind = {kind: {track: gain[kind] for track, gain in worth.items() if kind in gain} for kind in order}
    return section(
        "What a prior is worth",
        [prior_sentence(kind, gain) for kind, gain in by_kind.items()],
        "The best attack with such a prior minus the best attack with none, corrected for all pairs of an attack with "
        "a prior and one without on a track. Every method with options to tune has as many trials, however many "
        "options. " + " ".join(trained_on(boards)),
        prior_table(by_kind),
    )


def trained_on(boards: Boards) -> list[str]:
    """What every prior of the record was trained on."""
    found = {(entry["prior"], entry["prior_trained_on"]) for board in boards.values() for entry, _ in attacks(board)}
    return [f"{prior}: trained on {what}." for prior, what in sorted(found, key=str) if prior not in (None, "none")]


def prior_sentence(kind: str, by_track: Mapping[str, Comparison]) -> str:
    """Of one kind of prior on all tracks where it was used, those first where it gains."""
    words = dict.fromkeys([*VERDICTS, *(gain.verdict for gain in by_track.values())])
    by_word = {
        word: [f"{track} ({gain.difference.mean:+.1f} dB)" for track, gain in by_track.items() if gain.verdict == word]
        for word in words
    }
    parts = (f"{word} on {', '.join(tracks)}" for word, tracks in by_word.items() if tracks)
    return f"{kind[:1].upper()}{kind[1:]}: {'; '.join(parts)}."


def prior_table(by_kind: Mapping[str, Mapping[str, Comparison]]) -> Table:
    """A line for each track, a column for each kind of prior."""
    tracks = list(dict.fromkeys(track for gains in by_kind.values() for track in gains))
    cells = {kind: [minus(gain[t]) if t in gain else NOTHING for t in tracks] for kind, gain in by_kind.items()}
    return Table("", {"track": tracks, **cells})


def defenses(boards: Boards, pairs: Sequence[tuple[str, str, str]]) -> list[Block]:
    """Which defenses hold against an attacker who adapts to them.

    Args:
        pairs: a defense, its track, and the track that differs in nothing else.
    """
    share, found = f"{100 * HELD:.0f} %", defended(pairs, boards)
    return section(
        "Which defenses hold",
        [defense_sentence(each) for each in found],
        "Only the attacks that are recorded on a track were tried: another one may do more. A defense does not hold "
        f"where of one attack the interval of the share of recognized images lies above {share}, without correction "
        f"for the number of attacks. Where it ends at {share} or below for every attack, the defense holds if none of "
        f"them is shown above the mean image. {share} was chosen because 24 images cannot show less: where none of "
        "them is recognized, the interval ends at 14 %. It does not mean that such a share is acceptable. 8 batches "
        f"are too few to show that a defense holds. Recognized: {NOTES['recognized']}. The attacker knows the defense "
        "and adapts to it: to noise and to quantization by tuned options alone, as the mean of what they send is the "
        "gradient itself. Differences are between the strongest attacks with and without the defense, over the images "
        "that both tracks have, corrected for these defenses but not for the choice of the strongest attacks. The "
        "track with a defense may have fewer trials of tuning than the one without.",
        defense_table(found),
    ) + section(
        "Attacks that are better behind a defense",
        [f"{track}, {minus(each)}." for track, each in better_behind(pairs, boards)],
        "The same attack with the defense minus without it, corrected for all attacks and defenses. A defense that is "
        "a function of the update, as clipping is, can be applied by who has the whole update: without a defense such "
        "an attack is below what it could reach. Soteria is none: it chooses what it prunes by the images.",
    )


def defense_sentence(found: Defended) -> str:
    """`noise:0.01 does not hold: 25 % [14, 40] of images are recognized with ig, the best of 9 attacks by ...`."""
    return f"{found.defense} {found.verdict}{f': {recognized(found.behind)}' if found.behind else ''}."


def defense_table(found: Sequence[Defended]) -> Table:
    """A line for each defense: beside its track the one without it, by all attacks and by the strongest."""
    return Table(
        "",
        {
            "defense": [each.defense for each in found],
            "track": [each.track for each in found],
            "recognized": [percent(each.behind) for each in found],
            "recognized without it": [percent(each.without) for each in found],
            "shown above the mean image": [above(each.above) for each in found],
            "strongest attack, minus that without it": [
                minus(each.change) if each.change else UNPAIRED for each in found
            ],
        },
    )


def above(found: Sequence[Comparison]) -> str:
    """`14 attacks, ci_net by +11.72 dB [+9.88, +13.55]`."""
    if not found:
        return NOTHING
    return f"{count(len(found), 'attack')}, {found[0].other.attack} by {signed(found[0].difference)}"


def settings(boards: Boards, pairs: Mapping[str, tuple[str, str]]) -> list[Block]:
    """How leakage changes with the setting.

    Args:
        pairs: a base track and another, by what differs.
    """
    there = {what: pair for what, pair in pairs.items() if boards.keys() >= {*pair}}
    found = changes([(boards[base], boards[other]) for base, other in there.values()])
    return section(
        "Batch size, local steps, victim",
        [
            setting_sentence(what, *there[what], change, none_above(boards[there[what][1]]))
            for what, change in zip(there, found, strict=True)
        ],
        "The strongest attack of each track, over the images that both tracks have, corrected for these comparisons "
        "but not for the choice of the strongest attacks. Budgets, trials of tuning and the attacks that were tried "
        "differ, see the tracks.",
    )


def setting_sentence(what: str, base: str, other: str, change: Comparison | None, floor: bool) -> str:
    """
    Args:
        floor: whether no attack of the other track is shown above the mean image.
    """
    if change is None:
        return f"{what}, from {base} to {other}: {UNPAIRED}."
    d = change.difference
    paired = f"{count(d.n, 'image')} in {count(d.clusters, 'independent group')} of batches"
    return (
        f"{what}, from {of(base, change.base)} to {of(other, change.other)}: {signed(d)}, {paired}, {change.verdict}"
        f"{f'; on {other} no attack is shown above the mean image' if floor else ''}."
    )


def of(track: str, entry: Entry) -> str:
    """`cifar10-b1 (ig, 24.80 dB [24.03, 25.57])`."""
    return f"{track} ({', '.join(filter(None, (entry.attack, entry.psnr and decibels(entry.psnr))))})"


def minus(found: Comparison) -> str:
    """`gias - ig: +5.32 dB [+4.90, +5.81], 24 images, better`."""
    d = found.difference
    return f"{found.other.attack} - {found.base.attack}: {signed(d)}, {count(d.n, 'image')}, {found.verdict}"


def recognized(share: Share) -> str:
    """`25 % [14, 40] of images are recognized with ig, the best of 9 attacks by this share`."""
    found = f"{percent(share)} of images are recognized with"
    if len(share.attacks) == share.among > 1:
        return f"{found} each of {share.among} attacks"
    best = f", the best of {share.among} attacks by this share" if share.among > 1 else ""
    return f"{found} {', '.join(share.attacks)}{best}"


def percent(share: Share | None) -> str:
    """`25 % [14, 40]`."""
    if share is None:
        return NOTHING
    score = share.recognized
    return f"{100 * score.mean:.0f} % [{100 * score.low:.0f}, {100 * score.high:.0f}]"


def count(number: int, noun: str) -> str:
    """`1 attack`, `2 attacks`, `2 processes`."""
    several = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{'' if number == 1 else several}"


def decibels(score: Score, sign: str = "") -> str:
    """`15.32 dB [14.90, 15.81]`; without an interval where none is known."""
    interval = "" if isnan(score.low) else f" [{score.low:{sign}.2f}, {score.high:{sign}.2f}]"
    return f"{score.mean:{sign}.2f} dB{interval}"


def signed(score: Score) -> str:
    """`+5.32 dB [+4.90, +5.81]`."""
    return decibels(score, "+")
