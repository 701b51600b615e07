"""The record: rows of methods on tracks, which ship with the project.

record/TRACK/METHOD.jsonl.gz    the rows of a method
record/TRACK/METHOD.webp        its first images: truth above reconstruction
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from leaderboard.options import row_keys
from leaderboard.rows import PROTOCOL, FlatRow, read_rows
from leaderboard.run_folder import write_atomically

RECORD = Path(__file__).parent / "record"
ROWS = ".jsonl.gz"
LARGEST_STRIP = 40_000  # bytes of a picture: all of the record takes at most 12 MB


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
    path = write_rows(track, method, rows)
    write_atomically(picture(track, method), strip)
    return path


def write_rows(track: str, method: str, rows: Iterable[FlatRow]) -> Path:
    """Without a picture, as of label methods."""
    path = RECORD / track / f"{method}{ROWS}"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomically(path, gzip.compress(lines.encode(), mtime=0))
    return path


def read(track: str = "*", method: str = "*") -> Iterator[tuple[Path, list[FlatRow]]]:
    """The rows of all methods on all tracks, or of some, each with its file; without those of label methods."""
    for path in sorted(RECORD.glob(f"{track}/{method}{ROWS}")):
        if rows := read_rows(path)[0]:
            yield path, rows


def method_of(path: Path) -> str:
    """Whose rows a file of the record has."""
    return path.name.removesuffix(ROWS)


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
    for path, recorded in read():
        for row in recorded:
            if tuple(map(str, (row[key] for key in keys))) in settings:
                yield row, path.with_name(method_of(path))
