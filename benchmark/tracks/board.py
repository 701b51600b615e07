"""`python -m benchmark.tracks.board`: the page of the record in docs/board/, and the README's table.

All of it is computed from the record, the tracks and what was tuned on them: the same files give the same bytes.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmark.names import ROOT, comment, known
from benchmark.tracks import label_track
from benchmark.tracks.recorded import Recorded, recorded
from benchmark.tracks.track import DEFAULT, METRIC, Track, read, text
from benchmark.tracks.tuned import read_tuned
from leaderboard import labels_board, record
from leaderboard.answers import behind, over_control
from leaderboard.document import Block, Heading, Items, Links, Pictures, Text, html, markdown
from leaderboard.harm import NOTES
from leaderboard.options import Options
from leaderboard.orderings import claims, judgments, not_judged, reasons, summary
from leaderboard.orderings import table as orderings_table
from leaderboard.reported import reported
from leaderboard.sentences import (
    PAPERS,
    REASONS,
    SCOPE,
    WORDS,
    count,
    defenses,
    priors,
    settings,
    signed,
    strongest,
)
from leaderboard.table import NOTHING, Table, board_table
from victims.errors import InputError

FOLDER, README = ROOT / "docs" / "board", ROOT / "README.md"
UP = "../.."  # from the folder to the root
BEGIN, END = "<!-- make board writes what follows -->", "<!-- until here -->"

BEHIND, OVER, TUNED = "minus the best", "minus the mean image", "tuned"
SHOWN = (
    "attack", "PSNR ↑", BEHIND, OVER, "prior", "best in batch", "worst in batch", "recognized", "SSIM ↑", "LPIPS ↓",
    "n", "gradients", "s/task", TUNED,
)  # fmt: skip
COLUMNS = (
    "Minus the best: paired over images, which tells more than whether intervals overlap; verdicts as above for the "
    "strongest. Minus the mean image: paired too; verdicts after Holm's correction for the attacks of the track. Best "
    f"and worst in batch: the PSNR of these images of every batch. recognized: {NOTES['recognized']}. gradients: of "
    "the victim for a batch. s/task: on shared CPU cores beside other work, so that its order of magnitude counts. "
    "tuned: PSNR on the images for tuning, from the default options to the best."
)
REFUSED = "Methods that cannot be used on a track"
SHORT = ("attack", "PSNR ↑", BEHIND, "prior")  # in the README
MAY_BE = (
    "'May be the best' says that it was not excluded at p < .025, after correction for the number of attacks. The "
    "intervals are not corrected: one can exclude 0 although the attack may be the best."
)

COMPARED = {
    "A larger batch": ("cifar10-b1", "cifar10-b4"),
    "An update of four local steps": ("cifar10-b4", "cifar10-fedavg4"),
    "Another victim, deeper and with global pooling": ("cifar10-b1", "cifar10-resnet18-b1"),
    "Another victim, trained, deeper and with global pooling": ("cifar10-b1", "cifar10-trained"),
}
UNTRAINED = dict.fromkeys(("ci_net", "gi_nas"), "untrained network")  # their rows say no prior: the network is one


def names() -> list[str]:
    """The names of the tracks, the default track first."""
    return sorted(known("track"), key=lambda name: (name != DEFAULT, name))


def files() -> dict[Path, str]:
    """What `make board` writes."""
    found = [recorded(read(name)) for name in names()]
    page = blocks(found, {name: of_labels(name) for name in known("label track")})
    return {
        FOLDER / "README.md": markdown(page),
        FOLDER / "index.html": html(page, f"{UP}/leaderboard/page/page.css"),
        README: with_board(README.read_text(), short(found[0])),
    }


def blocks(tracks: Sequence[Recorded], labels: Mapping[str, list[Block]]) -> list[Block]:
    """The page: answers, what papers say, tracks.

    Args:
        labels: the sections of tracks of label methods, by name; empty where nothing is recorded.
    """
    found = [each for each in tracks if each.attacks()]
    there = [*(each.name for each in found), *(name for name, section in labels.items() if section)]
    page: list[Block] = [
        Heading(1, "The board of record"),
        Text(
            "What attacks rebuild of private images from the update that a client shares, on fixed tracks. On each, "
            "every method that has something to tune was tuned by one rule on images that are never scored, and all "
            "ran within one budget of victim gradients. Public research data only. Numbers are means over images "
            "with 95 % intervals by Student's t over batches, or by a bound where all have one value, and of shares of "
            "single images by Clopper and Pearson; differences are of the PSNR, paired over images. The scored runs "
            f"took {sum(each.hours() for each in found):.1f} hours, one task after another."
        ),
        Links([*((name, f"#{name}") for name in there), ("all rows", f"{UP}/leaderboard/record")]),
    ]
    if found:
        page += [*answers(found), Heading(2, "The tracks"), Text(COLUMNS)]
    page += [block for each in found for block in section(each)]
    page += [block for section in labels.values() for block in section]
    if found:
        page += [Heading(2, REFUSED), refused([each.name for each in found])]
    missing = ", ".join(name for name in (*(each.name for each in tracks), *labels) if name not in there)
    return [*page, Heading(2, "Not recorded yet"), Text(f"{missing}.")] if missing else page


def answers(found: Sequence[Recorded]) -> list[Block]:
    """What the record says, and what papers say, in words."""
    boards = {each.name: each.current() for each in found}
    papers, numbers = claims(), reported()
    of_papers = judgments(papers, boards)
    return [
        Heading(2, "What the record says"),
        Text(WORDS),
        Text(SCOPE.format(victims=victims([each.track for each in found]))),
        *strongest(boards),
        *priors(boards, {each.name: kinds(each) for each in found}),
        *defenses(boards, defended(found)),
        *settings(boards, COMPARED),
        Heading(2, "What papers say"),
        Text(PAPERS),
        *(Text(said) for said in (summary(of_papers), not_judged(papers, of_papers)) if said),
        orderings_table(of_papers, numbers),
        *((Text(REASONS), Items(why)) if (why := reasons(papers, of_papers)) else ()),
    ]


def victims(tracks: Sequence[Track]) -> str:
    """`Of 14 tracks, 12 attack convnet, 2 attack resnet18`."""
    counted = Counter(str(track.options["victim"]) for track in tracks)
    parts = (f"{n} attack{'s' if n == 1 else ''} {name}" for name, n in counted.most_common())
    return f"Of {count(len(tracks), 'track')}, {', '.join(parts)}"


def kinds(found: Recorded) -> dict[str, str]:
    """The kind of prior of every attack that has one."""
    names = {name: kind for kind, name in found.track.priors.items()}
    return UNTRAINED | {entry.attack: names[entry["prior"]] for entry, _ in found.board if entry["prior"] in names}


def defended(found: Sequence[Recorded]) -> list[tuple[str, str, str]]:
    """Defense and track of those that differ in nothing else from a track without one, and that track."""

    def but_for_it(track: Track) -> list[tuple[str, object]]:
        return sorted((name, value) for name, value in track.options.items() if name not in ("defense", "adapt"))

    def defense(track: Track) -> str:
        return str(track.options.get("defense", Options.defense))

    without = [each.track for each in found if defense(each.track) == "none"]
    return [
        (defense(each.track), each.name, base.name)
        for each in found
        for base in without
        if defense(each.track) != "none" and but_for_it(each.track) == but_for_it(base)
    ]


def section(found: Recorded) -> list[Block]:
    """A track: what it is, the pictures of its methods, their table."""
    track, tune, shown = found.track, found.track.tune, pictures(found, UP)
    code = ", ".join(sorted({row["code"] for _, rows in found.board for row in rows.values()}))
    about = [
        f"Setting: {', '.join(f'{name} {text(value)}' for name, value in track.options.items())}.",
        f"Budget: {track.evaluations} victim gradients for each of {track.tasks} batches.",
        f"Tuning: {tune.trials} trials of every method with options to tune, each the mean {METRIC.upper()} of "
        f"{tune.tasks} batches of the split tune, seed {tune.seed}.",
        f"Priors: {', '.join(f'{kind} {name}' for kind, name in track.priors.items())}.",
        f"Version {track.version} of the track; code {code}; {found.hours():.2g} hours.",
    ]
    if there := found.attacks():
        line = f"TRACK={track.name} METHOD={there[0]}"
        about.append(
            f"To run a line again: make bench {line}; to check it against the record: make verify {line}; which data "
            f"and weights that takes: make track TRACK={track.name}."
        )
    if left := [name for name in known("attack") if name not in {*there, *record.refused(track.path.stem)}]:
        about.append(f"Not recorded yet: {', '.join(left)}.")
    if own := [entry.attack for entry, _ in found.board if entry["labels"] not in (None, Options.labels)]:
        about.append(f"Labels found by the method itself: {', '.join(own)}.")
    strips = [Pictures("Truth above reconstruction", shown)] if shown else []
    return [Heading(3, track.name), Text(comment(track.path)), *strips, table(found), Items(about)]


def refused(tracks: Sequence[str]) -> Table:
    """The methods that cannot be used on tracks, and why."""
    why = [(method, reason, name) for name in tracks for method, reason in record.refused(name).items()]
    where: dict[tuple[str, str], list[str]] = {}
    for method, reason, name in sorted(why):
        where.setdefault((method, reason), []).append(name)
    columns = {
        "attack": [method for method, _ in where],
        "why": [reason for _, reason in where],
        "tracks": [", ".join(names) for names in where.values()],
    }
    return Table("", columns)


def table(found: Recorded) -> Table:
    """The methods of a track, the best first."""
    names, kind = [entry.attack for entry, _ in found.board], dict.fromkeys(found.attacks(), "none") | kinds(found)
    current = found.current()
    lost, over = (
        {each.other.attack: f"{signed(each.difference)} {each.verdict}" for each in compared}
        for compared in (behind(current), over_control(current))
    )
    known = board_table([entry for entry, _ in found.board]).columns | {
        BEHIND: [lost.get(name, NOTHING) for name in names],
        OVER: [over.get(name, NOTHING) for name in names],
        "prior": [kind.get(name, NOTHING) for name in names],
        TUNED: [tuned_from(found.track, name) for name in names],
    }
    columns = {heading: known[heading] for heading in SHOWN if heading in known}
    return marked(Table("", columns), found.stale())


def tuned_from(track: Track, method: str) -> str:
    """What tuning was worth on the images for tuning."""
    tuned = read_tuned(track, method)
    return f"{tuned.default:.2f} to {tuned.score:.2f} dB, {tuned.rule['trials']} trials" if tuned else NOTHING


def pictures(found: Recorded, root: str) -> list[tuple[str, str]]:
    """The methods that have pictures, the best first, and where they are."""
    files = {entry.attack: record.picture(found.track.path.stem, entry.attack) for entry, _ in found.board}
    return [
        (method, f"{root}/leaderboard/record/{file.parent.name}/{file.name}")
        for method, file in files.items()
        if file.is_file()
    ]


def of_labels(name: str) -> list[Block]:
    """A track of label methods: what it is, and its tables; nothing where nothing is recorded."""
    track = label_track.read(name)
    found = [*record.read_labels(name)]
    stale = {kept.method: kept.stale(track.version) for kept in found}
    for kept in found:
        if not stale[kept.method]:
            cells = {(row["victim"], row["batch_size"]) for row in kept.rows}
            kept.require(track.trials * len(cells), "victim", "batch_size", "task")
    rows = [row for kept in found for row in kept.rows]
    tables = [marked(labels_board.table(rows, score), [*stale.values()]) for score in labels_board.HEADINGS]
    about = f"{track.trials} batches of each size; version {track.version} of the track."
    return [Heading(3, name), Text(comment(track.path)), Text(about), *tables] if rows else []


def marked(table: Table, stale: Sequence[str]) -> Table:
    """With a column that says of each line why its record is stale, where one is."""
    return replace(table, columns=table.columns | {"stale": [why or NOTHING for why in stale]}) if any(stale) else table


def short(found: Recorded) -> str:
    """The best method's picture and the table of a track for the README, without what is stale, and what it means."""
    found = found._replace(board=found.current())
    if not found.board:
        return f"Nothing is recorded on {found.name} yet.\n"
    whole = table(found).columns
    columns = {heading: whole[heading] for heading in SHORT if heading in whole}
    best = [
        f"Truth above its reconstruction by `{name}`:\n\n![{name}]({path})\n" for name, path in pictures(found, ".")
    ]
    return "\n".join([*best[:1], Table("", columns).markdown(), markdown([Text(MAY_BE)])])


def with_board(text: str, content: str) -> str:
    """A text with `content` between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md needs the lines {BEGIN} and {END}.")
    return f"{before}{BEGIN}\n\n{content}\n{END}{after}"


def main() -> int:
    """The exit code: 0, or 2 with one line where a file of the record, or what was tuned, is damaged."""
    try:
        found = files()
    except InputError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    for path, written in found.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(written)
        print(f"written  {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
