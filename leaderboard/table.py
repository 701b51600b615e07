"""Entries and paired differences -> text for a terminal, Markdown, CSV."""

import csv
import html
import io
import re
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from shutil import get_terminal_size
from typing import Any

from leaderboard.board import BESIDE, COUNTS, DIGESTS, FOLLOWING, IDENTITY, Entry, metrics, places, telling
from leaderboard.harm import NOTES
from leaderboard.statistics import Score, corrected, verdicts

NOTHING = "-"
# Without the attack, which is always shown with its control and a mark for an older protocol.
SETTING_COLUMNS = (
    *(key for key in IDENTITY if key not in ("attack", "control", "options", "protocol")),
    "lpips_backbone",
)


@dataclass(frozen=True)
class Table:
    """Columns of cells by heading, the attack first, with text above and below."""

    above: str
    columns: dict[str, list[str]]
    below: str = ""

    def text(self) -> str:
        """Aligned columns. Those that do not fit into the terminal follow below, again with the attack first."""
        limit = get_terminal_size(fallback=(120, 24)).columns
        first, *others = (list(map(_printable, [heading, *cells])) for heading, cells in self.columns.items())
        blocks, free = [[first]], limit - _width(first)
        for column in others:
            if free < 2 + _width(column) and len(blocks[-1]) > 1:
                blocks.append([first])
                free = limit - _width(first)
            blocks[-1].append(column)
            free -= 2 + _width(column)
        grids = [
            "\n".join("  ".join(c[i].ljust(_width(c)) for c in block).rstrip() for i in range(len(first)))
            for block in blocks
        ]
        parts = [textwrap.fill(_printable(self.above), limit), *grids, textwrap.fill(self.below, limit)]
        return "\n\n".join(filter(None, parts)) + "\n"

    def markdown(self) -> str:
        """One pipe table."""
        lines = [tuple(self.columns), ("---",) * len(self.columns), *zip(*self.columns.values(), strict=True)]
        grid = "\n".join(f"| {' | '.join(map(escaped, line))} |" for line in lines)
        return "\n\n".join(filter(None, (escaped(self.above), grid, escaped(self.below)))) + "\n"


def as_text(entries: Sequence[Entry]) -> str:
    """The board for a terminal."""
    return board_table(entries).text()


def as_markdown(entries: Sequence[Entry]) -> str:
    """The board as a Markdown table."""
    return board_table(entries).markdown()


def as_csv(entries: Sequence[Entry]) -> str:
    """Every field of every entry, in full precision; a missing value is an empty cell.

    A spreadsheet computes a text that begins with =, +, - or @; an apostrophe in front keeps it text.
    """
    sheet = io.StringIO()
    shared = (*IDENTITY, "lpips_backbone")
    names = metrics(entries)
    parts = [f"{name}{part}" for name in (*names, *BESIDE) for part in ("", "_low", "_high", "_n", "_clusters")]
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(map(_inert, [*shared, *COUNTS, *parts]))
    for entry in entries:
        fields = {**entry.fields, "options": ", ".join(entry["options"] or ())}
        scores = [*(entry.scores.get(name) for name in names), *(getattr(entry, name) for name in BESIDE)]
        numbers = [number for score in scores for number in (score[:5] if score else [None] * 5)]
        numbers = [None if number is None or isnan(number) else number for number in numbers]
        cells = [*(fields[key] for key in shared), *(getattr(entry, key) for key in COUNTS), *numbers]
        writer.writerow(map(_inert, cells))
    return sheet.getvalue()


def board_table(entries: Sequence[Entry]) -> Table:
    """The common setting above; columns for the attack, what varies, counts, place, metrics and budget."""
    measured = {
        _heading(name, higher): [interval(entry.scores.get(name), entry.n) for entry in entries]
        for name, higher in metrics(entries).items()
    }
    scores = dict(list(measured.items())[:1])  # what others say beside the PSNR stands next to it
    if any(entry["batch_size"] > 1 for entry in entries):
        scores["best in batch"] = [interval(entry.best_in_batch) for entry in entries]
        scores["worst in batch"] = [interval(entry.worst_in_batch) for entry in entries]
    if any(entry.recognized for entry in entries):
        scores["recognized"] = [interval(entry.recognized, entry.n) for entry in entries]
    if any(entry.knows for entry in entries):
        scores["knows"] = [interval(entry.knows, entry.n, signed=True) for entry in entries]
    if any(entry.certified for entry in entries):
        scores["certified"] = [interval(entry.certified, entry.n) for entry in entries]
    ranks = {"place": list(map(_place, entries, places(entries)))}
    if any(entry.degenerate for entry in entries):
        scores["PSNR ↑ without degenerate"] = [interval(entry.psnr_of_others, entry.n) for entry in entries]
    counted = ["n", "tasks", *(key for key in ("diverged", "degenerate") if any(getattr(e, key) for e in entries))]
    counts = {key: [str(getattr(entry, key)) for entry in entries] for key in counted}
    budget = {
        "s/task": [f"{entry.seconds:.3g}" for entry in entries],
        "gradients": [f"{entry.gradient_evaluations:.0f}" for entry in entries],
    }
    if any(entry.training_seconds is not None for entry in entries):
        budget["s of training"] = [
            NOTHING if e.training_seconds is None else f"{e.training_seconds:.0f}" for e in entries
        ]
    notes = [f"{name}: {note}." for name, note in NOTES.items() if name in scores]
    below = " ".join(filter(None, [_footnote(entries), *notes, _missing(entries)]))
    return Table(common(entries), _names(entries) | counts | ranks | scores | measured | budget, below)


def difference_table(
    base: Entry, differences: Sequence[tuple[Entry, dict[str, Score | None]]], board: Sequence[Entry]
) -> Table:
    """Each entry minus `base`, over the images that both have; entries are named as in the table of `board`."""
    names = _names(board)
    places = [board.index(entry) for entry, _ in differences]
    columns = {key: [cells[place] for place in places] for key, cells in names.items()}
    columns["n"] = [str(max((score.n for score in scores.values() if score), default=0)) for _, scores in differences]
    by_metric = {}
    for name, higher in metrics([base, *(entry for entry, _ in differences)]).items():
        by_metric[name] = [scores.get(name) for _, scores in differences]
        shown = zip(columns["n"], by_metric[name], verdicts(by_metric[name], higher), strict=True)
        columns[_heading(name, higher)] = [
            f"{interval(score, int(n), signed=True)} {verdict}".rstrip() for n, score, verdict in shown
        ]
    named = ", ".join(f"{key} {cells[board.index(base)]}" for key, cells in names.items())
    above = f"Each line minus {named}: paired over the images that both have. {corrected(by_metric.values())}".rstrip()
    return Table(above, columns, _footnote([base, *(entry for entry, _ in differences)]))


def _place(entry: Entry, place: tuple[int, bool] | None) -> str:
    """`2`, `2=` where it is shared; the reason where an attack has none."""
    if place:
        return f"{place[0]}{'=' if place[1] else ''}"
    return entry.too_few or NOTHING


def _names(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """The columns that tell entries apart."""
    columns = {"attack": [e.attack + ("*" if e.stale else "") for e in entries]}
    hidden = {*FOLLOWING} - telling(entry.fields for entry in entries)
    for key in SETTING_COLUMNS:
        if (
            key not in hidden
            and len(_values(entries, key)) > 1
            and not (key == "prior_trained_on" and "prior" in columns)
        ):
            columns[key] = [_cell(entry[key]) for entry in entries]
    alike = defaultdict(list)
    for entry in entries:
        alike[entry.attack].append(set(entry["options"] or ()))
    options = [
        # Attacks have different options. Shown are those that tell entries of the same attack apart.
        ", ".join(option for option in e["options"] or () if option not in set.intersection(*alike[e.attack]))
        for e in entries
    ]
    return columns | ({"options": [_cell(cell) for cell in options]} if any(options) else {})


def common(entries: Sequence[Entry]) -> str:
    common = {key: _values(entries, key) for key in SETTING_COLUMNS if key not in DIGESTS}
    return ", ".join(f"{key} {_cell(values.pop())}" for key, values in common.items() if len(values) == 1)


def _values(entries: Sequence[Entry], key: str) -> set[Any]:
    return {entry[key] for entry in entries} - {None}


def _footnote(entries: Sequence[Entry]) -> str:
    ages = sorted({entry.age for entry in entries} - {""})
    return f"* {' or '.join(ages[::-1])} protocol." if ages else ""


def _missing(entries: Sequence[Entry]) -> str:
    """Why entries have no LPIPS, or no `recognized`, which needs it."""
    distances = [score for entry in entries for name, score in entry.scores.items() if name.startswith("lpips")]
    said = []
    if None in distances:
        said.append("No LPIPS where its network has no weights, images are too small for it, or runs differ in it.")
    if any(entry.recognized is None for entry in entries):
        said.append("recognized needs the LPIPS of squeeze.")
    return " ".join(said)


def _heading(metric: str, higher_is_better: bool) -> str:
    return f"{metric.upper()} {'↑' if higher_is_better else '↓'}"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return NOTHING if value in (None, "") else str(value)


def escaped(text: str) -> str:
    """For Markdown: it holds no HTML, link, emphasis or end of a cell."""
    return re.sub(r"([|*\\]|(?<=\])\()", r"\\\1", html.escape(_printable(text), quote=False))


def _printable(text: str) -> str:
    """Without line breaks and what else steers a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _inert(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def interval(score: Score | None, images: int = 0, *, signed: bool = False) -> str:
    """`15.32 [14.9, 15.8]`, and n where it differs from the number of `images`."""
    if score is None:
        return NOTHING
    sign = "+" if signed else ""
    partial = f" (n={score.n})" if images and score.n != images else ""
    return f"{score.mean:{sign}#.4g} {bounds(score)}{partial}"


def bounds(score: Score) -> str:
    """`[14.9, 15.8]`, or `[-]` where there is no interval."""
    return f"[{NOTHING}]" if isnan(score.low) else f"[{_digits(score.low, 3)}, {_digits(score.high, 3)}]"


def _digits(number: float, digits: int) -> str:
    return f"{number:#.{digits}g}".rstrip(".")


def _width(column: Sequence[str]) -> int:
    return max(map(len, column))
