"""What the record has on a track, and whether all of it is of that track."""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from benchmark.tracks.track import Track
from benchmark.tracks.tuned import read_tuned
from leaderboard import record
from leaderboard.answers import Board
from leaderboard.board import EntryWithRows, entries_with_rows
from leaderboard.options import abouts, row_keys
from leaderboard.record import Kept, damaged

OWN = ("labels", "victim_weights", "mean", "std")  # options of a track that a row says in other words
SAME = (*(key for key in row_keys("setting") if key not in record.CODE), "seed")


class Recorded(NamedTuple):
    """What the record has on a track: all methods, the best first."""

    track: Track
    board: Board

    @property
    def name(self) -> str:
        return self.track.name

    def stale(self) -> list[str]:
        """Of each entry why it cannot be compared with the others, or nothing."""
        return [self.stale_entry(pair) for pair in self.board]

    def stale_entry(self, pair: EntryWithRows) -> str:
        entry, rows = pair
        if why := record.stale(rows.values(), self.track.version):
            return why
        tuned = read_tuned(self.track, entry.attack) if entry.control == "none" else None
        row = next(iter(rows.values()))
        said = {**row["options"], "restarts": row["restarts"], "steps": row["steps"]}
        again = tuned and any(said.get(name) != value for name, value in tuned.options.items())
        return "tuned anew since it was recorded" if again else ""

    def current(self) -> Board:
        """The entries from which questions are answered."""
        return [pair for pair, stale in zip(self.board, self.stale(), strict=True) if not stale]

    def attacks(self) -> list[str]:
        return [entry.attack for entry, _ in self.board if entry.control == "none"]

    def hours(self) -> float:
        return sum(entry.seconds * entry.tasks for entry, _ in self.board) / 3600


def recorded(track: Track) -> Recorded:
    """
    Raises:
        InputError: a file of the record is damaged, has not all images of the track, or is of another setting.
    """
    control = record.read_control(track.path.stem)
    found = [*record.read(track.path.stem), *([control] if control else [])]
    require_alike(track, [kept for kept in found if not kept.stale(track.version)])
    board = entries_with_rows(row for kept in found for row in kept.rows)
    return Recorded(track, sorted(board, key=best_first))  # also where code changed, which makes another setting


def require_alike(track: Track, found: Sequence[Kept]) -> None:
    """
    Raises:
        InputError: rows are of another setting than the track's or each other's, of other images, or over the budget.
    """
    options = {abouts()[name].rows[0]: value for name, value in track.options.items() if name not in OWN}
    for kept in found:
        kept.require(track.tasks * kept.rows[0]["batch_size"], "task", "image")
        expected = {**{key: found[0].rows[0][key] for key in SAME}, **options}
        for row in kept.rows:
            if other := [key for key, value in expected.items() if row[key] != value]:
                key = other[0]
                raise damaged(kept.path, f" has {key} {row[key]}, and the track or its other records {expected[key]}")
            if row["gradient_evaluations"] > track.evaluations:
                taken = row["gradient_evaluations"]
                raise damaged(kept.path, f" took {taken} victim gradients, and the track allows {track.evaluations}")
        if images_of(kept) != images_of(found[0]):
            raise damaged(kept.path, f" is of other images than {found[0].path.name}")


def images_of(kept: Kept) -> set[tuple[str, str, str]]:
    return {(row["task"], row["image"], row["image_digest"]) for row in kept.rows}


def best_first(pair: EntryWithRows) -> tuple[bool, float]:
    """The attacks, by their PSNR, before the control."""
    entry, _ = pair
    return entry.control != "none", -entry.psnr.mean if entry.psnr else inf
