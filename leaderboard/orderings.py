"""Which method is stronger, as papers say, and what the record says after equal tuning."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from leaderboard.answers import FLOOR, Board, Comparison, above_control, attacks, compared, not_above
from leaderboard.reported import Reported
from leaderboard.sentences import count, signed
from leaderboard.statistics import BETTER, UNSHOWN, VERDICTS, WORSE
from leaderboard.table import Table

FILE = Path(__file__).with_suffix(".yaml")
WORDS = {BETTER: "holds", WORSE: "reversed"}
"""What a verdict on the stronger method says of a claim; others as they are."""
COUNTED = {
    BETTER: ("holds", "hold"),
    UNSHOWN: ("shows no difference", "show no difference"),
    WORSE: ("is reversed", "are reversed"),
}
"""Of one comparison, and of several."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper says of two methods.

    Attributes:
        paper: its methods and authors.
        stronger, weaker: the methods, by their names in this suite; one with an option has no place on a track.
        table: of `reported.yaml`, where it has numbers of both; empty where it has none.
        setting: where the paper says so, in a few words.
        reason: why the record shows no difference or reverses it, or what was measured beside the record, where that
            is known.
    """

    paper: str
    stronger: str
    weaker: str
    setting: str
    table: str = ""
    reason: str = ""


def claims(path: Path = FILE) -> list[Claim]:
    """All that are judged, in the order of the file."""
    papers = yaml.safe_load(path.read_text())
    return [Claim(paper=paper, **claim) for paper, said in papers.items() for claim in said]


class Judgment(NamedTuple):
    """Stronger minus weaker method of a claim on a track where both have a place."""

    claim: Claim
    track: str
    found: Comparison


def judgments(found: list[Claim], boards: Mapping[str, Board]) -> list[Judgment]:
    """Claims in their order, each on all tracks that have both methods.

    Verdicts are after Holm's correction for the claims of one paper on one track.
    """
    answers = []
    for track, board in boards.items():
        low = not_above(board)
        by_attack = {pair[0].attack: pair for pair in attacks(board)}
        there = [claim for claim in found if {claim.stronger, claim.weaker} <= by_attack.keys()]
        for paper in dict.fromkeys(claim.paper for claim in there):
            family = [claim for claim in there if claim.paper == paper]
            pairs = compared([(by_attack[claim.weaker], by_attack[claim.stronger]) for claim in family])
            answers += [
                Judgment(claim, track, above_control(pair, low))
                for claim, pair in zip(family, pairs, strict=True)
                if pair
            ]
    return sorted(answers, key=lambda answer: found.index(answer.claim))


def published(claim: Claim, numbers: list[Reported]) -> str:
    """`15.58 > 13.78 dB` in every place of the claim's table; empty where the paper has no numbers."""
    sides = [
        [n for n in numbers if n.table == claim.table and n.attack == attack and "psnr" in n.values]
        for attack in (claim.stronger, claim.weaker)
    ]
    if not all(sides):
        return ""
    alike = ([n.values["psnr"] for n in side if n.method == side[0].method] for side in sides)
    return ", ".join(f"{a:.2f} > {b:.2f}" for a, b in zip(*alike, strict=False)) + " dB"


def summary(answers: list[Judgment]) -> str:
    """`Of 3 comparisons, 1 holds and 2 are reversed.`"""
    words = Counter(answer.found.verdict for answer in answers)
    parts = [f"{words[word]} {COUNTED[word][words[word] > 1]}" for word in VERDICTS if words[word]]
    *first, last = parts or [""]
    said = f"{', '.join(first)} and {last}" if first else last
    counted = f"Of {count(sum(words[word] for word in VERDICTS), 'comparison')}, {said}." if parts else ""
    others = f"{words[FLOOR]} more" if parts else count(words[FLOOR], "comparison")
    floor = f"In {others} neither is shown above the mean image." if words[FLOOR] else ""
    return " ".join(filter(None, (counted, floor)))


def not_judged(found: list[Claim], answers: list[Judgment]) -> str:
    """Which claims are not on any track, in one sentence."""
    there = {answer.claim for answer in answers}
    others = dict.fromkeys(over(claim) for claim in found if claim not in there)
    return f"Not judged, because no track has both methods: {', '.join(others)}." if others else ""


def table(answers: list[Judgment], numbers: list[Reported]) -> Table:
    """A line for each claim and track; what was published, beside the first line of a claim."""
    first = {answer.claim: answer for answer in reversed(answers)}
    columns = {
        "claim": [over(answer.claim) for answer in answers],
        "verdict": [WORDS.get(answer.found.verdict, answer.found.verdict) for answer in answers],
        "track": [answer.track for answer in answers],
        "difference": [signed(answer.found.difference) for answer in answers],
        "as published": [
            as_published(answer.claim, numbers) if answer is first[answer.claim] else "" for answer in answers
        ],
    }
    return Table("", columns)


def reasons(found: list[Claim], answers: list[Judgment]) -> list[str]:
    """What was found of each claim that does not hold on every track, or is on none: `gias over ig: ...`."""
    verdicts = {claim: {answer.found.verdict for answer in answers if answer.claim == claim} for claim in found}
    left = (claim for claim in found if claim.reason and verdicts[claim] - {FLOOR} != {BETTER})
    return [f"{over(claim)}: {claim.reason}" for claim in left]


def over(claim: Claim) -> str:
    return f"{claim.stronger} over {claim.weaker}"


def as_published(claim: Claim, numbers: list[Reported]) -> str:
    return ": ".join(filter(None, (f"{claim.paper}, {claim.setting}", published(claim, numbers))))
