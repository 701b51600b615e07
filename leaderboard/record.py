"""The record: rows of methods on tracks, which ship with the project.

record/TRACK/METHOD.jsonl.gz           the rows of a method
record/TRACK/METHOD.webp               its first images: truth above reconstruction
record/labels/TRACK/METHOD.jsonl.gz    the rows of a label method on a track of theirs
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from leaderboard.options import row_keys
from leaderboard.rows import PROTOCOL, FlatRow, read_rows
from leaderboard.run_folder import write_atomically
from victims.errors import InputError

RECORD = Path(__file__).parent / "record"
LABELS = "labels"  # folder of the tracks of label methods
ROWS = ".jsonl.gz"
LARGEST_STRIP = 40_000  # bytes of a picture: all of the record takes at most 12 MB


class Kept(NamedTuple):
    """What is kept of a method on a track."""

    track: str
    method: str
    rows: list[FlatRow]

    def stale(self, version: int) -> str:
        """See `stale`."""
        return stale(self.rows, version)


def write(track: str, method: str, rows: Iterable[FlatRow], strip: bytes) -> Path:
    """Replace what the record has of a method on a track; the same rows give the same bytes.

    Args:
        strip: a WebP picture of at most `LARGEST_STRIP` bytes.

    Raises:
        OSError: the folder cannot be written.
        ValueError: the picture is larger.
    """
    if len(strip) > LARGEST_STRIP:
        raise ValueError(f"the picture has {len(strip)} bytes; at most {LARGEST_STRIP}.")
    path = write_rows(RECORD / track, method, rows)
    write_atomically(picture(track, method), strip)
    return path


def write_labels(track: str, method: str, rows: Iterable[FlatRow]) -> Path:
    """The same of a label method, without a picture."""
    return write_rows(RECORD / LABELS / track, method, rows)


def write_rows(folder: Path, method: str, rows: Iterable[FlatRow]) -> Path:
    path = folder / f"{method}{ROWS}"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomically(path, gzip.compress(lines.encode(), mtime=0))
    return path


def read(track: str = "*", method: str = "*") -> Iterator[Kept]:
    """What is kept of all methods on all tracks, or of some.

    Raises:
        InputError: a line of a file is no row.
    """
    for path in sorted(RECORD.glob(f"{track}/{method}{ROWS}")):
        rows, wrong = read_rows(path)
        if wrong:
            raise InputError(f"{wrong[0].partition(';')[0]}; get the file again, or run make record.")
        if rows:
            yield kept(path, rows)


def read_labels(track: str = "*", method: str = "*") -> Iterator[Kept]:
    """The same of label methods, whose rows are of a batch each, see `leaderboard.labels_board`."""
    for path in sorted(RECORD.glob(f"{LABELS}/{track}/{method}{ROWS}")):
        yield kept(path, [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()])


def kept(path: Path, rows: list[FlatRow]) -> Kept:
    return Kept(path.parent.name, path.name.removesuffix(ROWS), rows)


def picture(track: str, method: str) -> Path:
    """Where the first images of a method on a track are."""
    return RECORD / track / f"{method}.webp"


def stale(rows: Iterable[FlatRow], version: int) -> str:
    """Why the scores of a record cannot be compared with new ones, in words; empty where they can.

    Args:
        version: that the track has now.
    """
    for row in rows:
        if row["protocol"] != PROTOCOL:
            return f"of protocol {row['protocol']}, now {PROTOCOL}"
        if row["track_version"] != version:
            return f"of version {row['track_version']} of the track, now {version}"
    return ""


def beside(rows: Sequence[FlatRow]) -> Iterator[tuple[FlatRow, Path]]:
    """The rows of the record in the settings of some rows, and where each stands."""
    keys = (*row_keys("setting"), "protocol")
    settings = {tuple(map(str, (row[key] for key in keys))) for row in rows}
    for recorded in read():
        for row in recorded.rows:
            if tuple(map(str, (row[key] for key in keys))) in settings:
                yield row, RECORD / recorded.track / recorded.method
