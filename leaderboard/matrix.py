"""Rows -> matrices: attacks by defenses, for every setting with more than one defense."""

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple

from leaderboard.board import (
    ATTACKER,
    FOLLOWING,
    OF_IMAGES,
    SETTING,
    Entry,
    EntryWithRows,
    entries_with_rows,
    metrics,
    telling,
)
from leaderboard.differences import difference
from leaderboard.figures import literal, write_figure
from leaderboard.files import write_atomically
from leaderboard.rows import FlatRow
from leaderboard.statistics import Score, corrected, verdicts
from leaderboard.table import NOTHING, Table, bounds, common, interval

SHARED = tuple(key for key in (*SETTING, "protocol") if key not in ("defense", "defense_digest", "adapt"))
ADAPTIVE, NON_ADAPTIVE = "adaptive", "non-adaptive"

Scores = dict[str, dict[str, Score]]
"""By line, then by defense; a pair that was not run is missing."""
Defense = tuple[str, str]
"""Its name and the digest of its code."""


@dataclass(frozen=True)
class Matrix:
    """The attacks of one setting by its defenses.

    Where both attackers were run, an attack has one line for the adaptive attacker and one for the non-adaptive one.
    Without a defense there is nothing to adapt to: both have the same score.

    Attributes:
        defenses: in the order of the rows, `none` first.
        lines: sorted by the first column, the best first; controls last.
        controls: the lines that are controls.
        gains: adaptive minus non-adaptive, paired over the images that both have.
    """

    setting: str
    metric: str
    higher_is_better: bool
    defenses: tuple[str, ...]
    lines: Scores
    controls: frozenset[str]
    gains: Scores

    def best(self, defense: str) -> float:
        """The score of the strongest attack on a defense; nan where there are only controls."""
        attacks = (line for name, line in self.lines.items() if name not in self.controls)
        means = [line[defense].mean for line in attacks if defense in line]
        return (max if self.higher_is_better else min)(means, default=nan)

    @property
    def most(self) -> int:
        """The largest number of images of any pair."""
        return max(score.n for line in self.lines.values() for score in line.values())

    def tables(self) -> list[Table]:
        """The scores; and the gain from adapting, where both attackers were run."""
        columns = {"attack": list(self.lines)}
        for defense in self.defenses:
            best = self.best(defense)
            columns[defense] = [
                interval(line.get(defense), self.most)
                + (" (best)" if name not in self.controls and defense in line and line[defense].mean == best else "")
                for name, line in self.lines.items()
            ]
        above = f"{self.metric.upper()} by attack and defense, n = {self.most} unless stated otherwise: {self.setting}"
        tables = [Table(above, columns)]
        if self.gains:
            columns = {"attack": list(self.gains)}
            for defense, words in self.gain_verdicts().items():
                cells = [
                    f"{interval(line.get(defense), self.most, signed=True)} {words.get(name, '')}".rstrip()
                    for name, line in self.gains.items()
                ]
                if set(cells) != {NOTHING}:
                    columns[defense] = cells
            tables.append(Table(self.what_gains_are(), columns))
        return tables

    def gain_verdicts(self) -> dict[str, dict[str, str]]:
        """Verdicts on the gains, by defense and then by line: one family of comparisons."""
        pairs = [(defense, name) for defense in self.defenses for name in self.gains]
        words = verdicts([self.gains[name].get(defense) for defense, name in pairs], self.higher_is_better)
        found: dict[str, dict[str, str]] = {defense: {} for defense in self.defenses}
        for (defense, name), word in zip(pairs, words, strict=True):
            found[defense][name] = word
        return found

    def what_gains_are(self) -> str:
        above = f"{self.metric.upper()}, adaptive - non-adaptive: paired over the images that both have. "
        return (above + corrected([[score for line in self.gains.values() for score in line.values()]])).rstrip()


def matrices(rows: Iterable[FlatRow], metric: str = "psnr") -> list[Matrix]:
    """One for every setting in which attacks were run on more than one defense."""
    rows = list(rows)
    board = entries_with_rows(rows)
    higher = metrics(entry for entry, _ in board).get(metric, True)
    order = list(dict.fromkeys(["none", *(row["defense"] for row in rows)]))
    settings = dict.fromkeys(_setting(entry) for entry, _ in board if entry.control != "mean_image")
    found = []
    for setting in settings:
        attacks = [pair for pair in board if pair[0].control != "mean_image" and _setting(pair[0]) == setting]
        headings = _headings([entry for entry, _ in attacks], order)
        if len(headings) > 1:
            first = attacks[0][0]
            means = [entry for entry, _ in board if entry.control == "mean_image" and _of_images(entry, first)]
            found.append(_matrix(attacks, means, headings, metric, higher))
    return [matrix for matrix in found if matrix.lines]  # a metric such as LPIPS may have no value at all


def _headings(entries: Sequence[Entry], order: Sequence[str]) -> dict[Defense, str]:
    """A column for each defense, and for each of its versions where its code changed, with its digest."""
    versions: dict[str, dict[Defense, None]] = {}
    for entry in entries:
        versions.setdefault(entry["defense"], {})[_defense(entry)] = None
    found: dict[Defense, str] = {}
    for name in order:
        of_name = versions.get(name, {})
        found |= {each: f"{name} {each[1]}" if len(of_name) > 1 else name for each in of_name}
    return found


def _defense(entry: Entry) -> Defense:
    return entry["defense"], entry["defense_digest"]


class Attacker(NamedTuple):
    """Entries of one attacker, each with its rows, by defense."""

    plain: dict[str, EntryWithRows]  # without a defense
    adaptive: dict[str, EntryWithRows]
    non_adaptive: dict[str, EntryWithRows]

    @property
    def is_control(self) -> bool:
        entry, _ = next(pair for kind in self for pair in kind.values())
        return entry.control != "none"

    def lines(self, name: str, metric: str, told: bool) -> Scores:
        """
        Args:
            told: whether the names of the lines say which kind of attacker it is.
        """
        kinds = {ADAPTIVE: self.adaptive, NON_ADAPTIVE: self.non_adaptive}
        found = {f"{name}, {kind}" if told else name: self.plain | own for kind, own in kinds.items() if own}
        by_line = found or {name: self.plain}
        return {line: _scores({d: entry for d, (entry, _) in own.items()}, metric) for line, own in by_line.items()}

    def gains(self, metric: str) -> dict[str, Score]:
        """Adaptive minus non-adaptive, by defense."""
        both = {d: (pair, self.non_adaptive[d]) for d, pair in self.adaptive.items() if d in self.non_adaptive}
        return {d: score for d, pairs in both.items() if (score := difference(*pairs, metric))}


def attackers(attacks: Sequence[EntryWithRows], headings: Mapping[Defense, str]) -> dict[str, Attacker]:
    """By name."""
    found: dict[tuple[Any, ...], Attacker] = {}
    for entry, rows in attacks:
        own = found.setdefault(tuple(entry[key] for key in ATTACKER), Attacker({}, {}, {}))
        kind = own.plain if entry["defense"] == "none" else own.adaptive if entry["adapt"] else own.non_adaptive
        kind[headings[_defense(entry)]] = entry, rows
    return dict(zip(names(list(found)), found.values(), strict=True))


def _matrix(
    attacks: Sequence[EntryWithRows],
    means: Sequence[Entry],
    headings: Mapping[Defense, str],
    metric: str,
    higher_is_better: bool,
) -> Matrix:
    defenses = tuple(headings.values())
    kinds = {entry["adapt"] for entry, _ in attacks if entry["defense"] != "none"}
    lines: Scores = {}
    gains: Scores = {}
    controls = {entry.attack for entry in means}
    for name, attacker in attackers(attacks, headings).items():
        own = attacker.lines(name, metric, told=len(kinds) > 1)
        lines |= own
        controls |= own.keys() if attacker.is_control else set()
        if gained := attacker.gains(metric):
            gains[name] = gained
    for entry in means:
        lines[entry.attack] = _scores(dict.fromkeys(defenses, entry), metric)  # it is the same under every defense
    sign = -1 if higher_is_better else 1

    def rank(label: str) -> tuple[bool, float]:
        first = next((lines[label][defense].mean for defense in defenses if defense in lines[label]), nan)
        return label in controls, sign * first

    lines = {label: lines[label] for label in sorted(lines, key=rank) if lines[label]}
    setting = _in_words([entry for entry, _ in attacks], kinds, metric)
    return Matrix(setting, metric, higher_is_better, defenses, lines, frozenset(controls), gains)


def _in_words(entries: Sequence[Entry], kinds: Collection[bool], metric: str) -> str:
    """What the entries of a matrix have in common.

    Args:
        kinds: of attackers that there are, whether they are adaptive.
    """
    if metric != "lpips":
        entries = [replace(entry, fields={**entry.fields, "lpips_backbone": None}) for entry in entries]
    (kind, *others) = [ADAPTIVE if adapt else NON_ADAPTIVE for adapt in kinds] or [""]
    attacker = f", {kind} attackers" if kind and not others else ""
    stale = f", {entries[0].age} protocol" if entries[0].stale else ""
    return common(entries) + attacker + stale


def _scores(by_defense: dict[str, Entry], metric: str) -> dict[str, Score]:
    return {defense: score for defense, entry in by_defense.items() if (score := entry.scores.get(metric))}


def _setting(entry: Entry) -> tuple[Any, ...]:
    return tuple(entry[key] for key in SHARED)


def _of_images(mean_image: Entry, attack: Entry) -> bool:
    """Whether a mean image was scored on the images of an attack."""
    return all(mean_image[key] == attack[key] for key in OF_IMAGES)


def names(attackers: Sequence[tuple[Any, ...]]) -> list[str]:
    """The name of each attacker: its attack and, where several have the same attack, what tells them apart."""
    fields = [dict(zip(ATTACKER, values, strict=True)) for values in attackers]
    names = []
    for own in fields:
        alike = [other for other in fields if other["attack"] == own["attack"]]
        hidden = {*FOLLOWING} - telling(alike)
        differing = [key for key in ATTACKER if key not in hidden and len({other[key] for other in alike}) > 1]
        if "prior" in differing and "prior_trained_on" in differing:
            differing.remove("prior_trained_on")  # follows from the prior
        common = set.intersection(*(set(other["options"]) for other in alike))
        own = own | {"options": " ".join(option for option in own["options"] if option not in common) or NOTHING}
        told = {key: NOTHING if own[key] == "" else own[key] for key in differing}
        names.append(", ".join([own["attack"], *(f"{key} {value}" for key, value in told.items())]))
    return names


def write(found: Sequence[Matrix], out: Path) -> list[Path]:
    """Write `matrix.md` and `matrix.png` into `out`, if there is a matrix; returns the files."""
    if not found:
        return []
    document, picture = out / "matrix.md", out / "matrix.png"
    write_atomically(document, "\n".join(table.markdown() for matrix in found for table in matrix.tables()))
    draw(found, picture)
    return [document, picture]


def draw(found: Sequence[Matrix], path: Path) -> None:
    """Draw one heat map per setting: mean, its 95 % interval, the best mean of every column framed."""
    from matplotlib.figure import Figure  # here, because the import takes longer than a board

    width = max(_left(matrix) + sum(map(_wide, matrix.defenses)) for matrix in found) + 1.1
    heights = [0.45 * len(matrix.lines) + 1.2 for matrix in found]
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    panels = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, matrix in zip(panels, found, strict=True):
        _draw_panel(panel, matrix, characters=int((width - _left(matrix)) * 15))
    write_figure(path, figure)


def _draw_panel(axis: Any, matrix: Matrix, characters: int) -> None:
    cells = [[line.get(defense) for defense in matrix.defenses] for line in matrix.lines.values()]
    values = [[score.mean if score else nan for score in line] for line in cells]
    colors = "cividis" if matrix.higher_is_better else "cividis_r"  # bright is the largest leak, for every metric
    image = axis.imshow(values, cmap=colors, aspect="auto")
    for i, (name, line) in enumerate(zip(matrix.lines, cells, strict=True)):
        for j, score in enumerate(line):
            if score is None:
                axis.text(j, i, NOTHING, ha="center", va="center", fontsize=8)
                continue
            red, green, blue, _ = image.to_rgba(score.mean)
            ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
            spread = "" if isnan(score.low) else f"\n{bounds(score)}"
            best = name not in matrix.controls and score.mean == matrix.best(matrix.defenses[j])
            axis.text(j, i, f"{score.mean:#.3g}{spread}", ha="center", va="center", fontsize=8, color=ink,
                      weight="bold" if best else "normal")  # fmt: skip
            if best:
                axis.add_patch(_frame(j, i, ink))
    axis.set_xticks(range(len(matrix.defenses)), [literal(name.replace("+", "+\n")) for name in matrix.defenses])
    axis.set_yticks(range(len(matrix.lines)), list(map(literal, matrix.lines)))
    axis.tick_params(labelsize=8, length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
    said = f"Mean and its 95 % interval, n = {matrix.most}, best mean framed: {matrix.setting}"
    axis.set_title(literal(textwrap.fill(said, characters)), fontsize=7, loc="left")
    axis.spines[:].set_visible(False)
    unit = " (dB)" if matrix.metric == "psnr" else ""
    bar = axis.figure.colorbar(image, ax=axis)
    bar.set_label(f"{matrix.metric.upper()}{unit}", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _frame(column: int, line: int, ink: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.46, line - 0.44), 0.92, 0.88, fill=False, edgecolor=ink, linewidth=1.2)


def _wide(defense: str) -> float:
    """The width of a column in inches; its heading is set at 8 points."""
    return max(0.9, 0.075 * max(map(len, defense.split("+"))) + 0.1)


def _left(matrix: Matrix) -> float:
    return 0.075 * max(map(len, matrix.lines)) + 0.2
