"""Which method is stronger, as papers say, and what the record says after equal tuning."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from leaderboard.answers import Board, attacks
from leaderboard.board import difference
from leaderboard.reported import Reported
from leaderboard.statistics import Score, verdicts
from leaderboard.table import NOTHING, Table

FILE = Path(__file__).with_suffix(".yaml")
WORDS = {"better": "holds", "tie": "ties", "worse": "reversed"}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper says of two methods.

    Attributes:
        paper: its methods and authors.
        stronger, weaker: the methods, by their names in this suite.
        table: of `reported.yaml`, where it has numbers of both; empty where it has none.
        setting: where the paper says so, in a few words.
        reason: why the record ties or reverses it, where that is known.
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


Judged = dict[str, tuple[Score, str]]
"""The difference and the verdict, by track."""


def judged(found: list[Claim], boards: Mapping[str, Board]) -> list[Judged]:
    """For each claim: stronger minus weaker by PSNR, paired over images, on all tracks where both have a place.

    Verdicts are after Holm's correction for the claims of one paper on one track.
    """
    answers: list[Judged] = [{} for _ in found]
    for track, board in boards.items():
        by_attack = {pair[0].attack: pair for pair in attacks(board)}
        for paper in dict.fromkeys(claim.paper for claim in found):
            family = [
                (answer, score)
                for claim, answer in zip(found, answers, strict=True)
                if claim.paper == paper and {claim.stronger, claim.weaker} <= by_attack.keys()
                if (score := difference(by_attack[claim.stronger], by_attack[claim.weaker], "psnr"))
            ]
            words = verdicts([score for _, score in family], True)
            for (answer, score), word in zip(family, words, strict=True):
                answer[track] = score, WORDS.get(word, word)
    return answers


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


def summary(answers: list[Judged]) -> str:
    """How often the claims hold, in one sentence."""
    total = sum(map(len, answers))
    return f"Of {total} comparisons of two methods on a track: {counted(answers)}." if total else ""


def counted(answers: list[Judged]) -> str:
    """`holds 3, ties 1`."""
    words = Counter(word for answer in answers for _, word in answer.values())
    return ", ".join(f"{word} {words[word]}" for word in WORDS.values() if words[word]) or NOTHING


def table(found: list[Claim], answers: list[Judged], numbers: list[Reported]) -> Table:
    """One line for each claim, a column for each track."""
    columns = {
        "claim": [f"{claim.stronger} over {claim.weaker}" for claim in found],
        "on the tracks": [counted([answer]) for answer in answers],
        "why": [claim.reason or NOTHING for claim in found],
        "as published": [
            ": ".join(filter(None, (f"{claim.paper}, {claim.setting}", published(claim, numbers)))) for claim in found
        ],
    }
    tracks = dict.fromkeys(track for answer in answers for track in answer)
    return Table("", columns | {track: [cell(answer.get(track)) for answer in answers] for track in tracks})


def cell(verdict: tuple[Score, str] | None) -> str:
    if verdict is None:
        return NOTHING
    score, word = verdict
    return f"{word} {score.mean:+.2f} [{score.low:+.2f}, {score.high:+.2f}]"
