"""The record: rows of methods on tracks, which ship with the project.

record/TRACK/METHOD.jsonl.gz           the rows of a method
record/TRACK/METHOD.webp               its first images: truth above reconstruction
record/TRACK/mean_image.jsonl.gz       the rows of the mean training image, the control, which needs no update
record/TRACK/refused.yaml              methods that cannot be used on a track, and why
record/labels/TRACK/METHOD.jsonl.gz    the rows of a label method on a track of theirs
"""

import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import yaml

from leaderboard.files import write_atomically
from leaderboard.labels_board import KEYS as LABEL_ROW
from leaderboard.options import row_keys
from leaderboard.rows import PROTOCOL, FlatRow, has_numbers, read_rows
from victims.errors import InputError

RECORD = Path(__file__).parent / "record"
REFUSED = "refused.yaml"
CONTROL = "mean_image"
LABELS = "labels"  # folder of the tracks of label methods
ROWS = ".jsonl.gz"
LABEL_KEYS = {*LABEL_ROW, "track", "track_version", "protocol"}
CODE = ("victim_digest", "defense_digest")  # of a setting: digests of code
LARGEST_STRIP = 40_000  # bytes of a picture: all of the record takes at most 12 MB


class Kept(NamedTuple):
    """What is kept of a method on a track."""

    track: str
    method: str
    rows: list[FlatRow]
    path: Path

    def require(self, count: int, *keys: str) -> None:
        """
        Args:
            keys: of a row, whose values together no other row has.

        Raises:
            InputError: there are more or fewer rows.
        """
        different = len({tuple(row[key] for key in keys) for row in self.rows})
        if not different == len(self.rows) == count:
            twice = f", {different} of them different" if different < len(self.rows) else ""
            raise damaged(self.path, f" has {len(self.rows)} rows{twice}, but the track makes {count}")

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


def write_refused(track: str, why: Mapping[str, str]) -> None:
    """Keep why methods cannot be used on a track.

    Args:
        why: by method; empty where it can be.
    """
    known = refused(track)
    if known != (found := {method: reason for method, reason in {**known, **why}.items() if reason}):
        path = RECORD / track / REFUSED
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, yaml.safe_dump(found, width=1000))


def refused(track: str) -> dict[str, str]:
    """The methods that cannot be used on a track, and why.

    Raises:
        InputError: the file is damaged.
    """
    path = RECORD / track / REFUSED
    try:
        found = yaml.safe_load(path.read_text()) if path.exists() else {}
    except (OSError, ValueError, yaml.YAMLError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(word, str) for pair in found.items() for word in pair):
        raise InputError(f"{path} is damaged; get the file again, or remove it and run make record for its methods.")
    return found


def read(track: str = "*", method: str = "*") -> Iterator[Kept]:
    """What is kept of all methods on all tracks, or of some.

    Raises:
        InputError: a file is damaged, or has rows of another method or track than its name says.
    """
    for path in sorted(RECORD.glob(f"{track}/{method}{ROWS}")):
        if path.name != CONTROL + ROWS:
            yield read_file(path)


def read_control(track: str) -> Kept | None:
    """The same of the mean training image, scored as if an attack had made it; None where it is not kept."""
    path = RECORD / track / f"{CONTROL}{ROWS}"
    return read_file(path) if path.exists() else None


def read_file(path: Path) -> Kept:
    """What a file keeps of a method, or of the control."""
    with intact(path):
        rows, wrong = read_rows(path)
    if wrong:
        raise damaged(path, wrong[0].partition(";")[0].removeprefix(str(path)))
    if not all(map(has_numbers, rows)):
        raise damaged(path, " has a score that is no number")
    if any(row.get("psnr") is None for row in rows):
        raise damaged(path, " has an image without a PSNR")
    return kept(path, rows, "control" if path.name == CONTROL + ROWS else "attack")


def read_labels(track: str = "*", method: str = "*") -> Iterator[Kept]:
    """The same of label methods, whose rows are of a batch each, see `leaderboard.labels_board`."""
    for path in sorted(RECORD.glob(f"{LABELS}/{track}/{method}{ROWS}")):
        with intact(path):
            rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
            if not all(row.keys() >= LABEL_KEYS for row in rows):
                raise ValueError("a line is not a row")
        yield kept(path, rows, "label_method")


@contextmanager
def intact(path: Path) -> Iterator[None]:
    """While a file is read: what it raises where it is no gzip, not all of one, or holds other lines, is InputError."""
    try:
        yield
    except (OSError, EOFError, zlib.error, ValueError, AttributeError) as error:
        raise damaged(path, f" is damaged ({error})") from None


def kept(path: Path, rows: list[FlatRow], key: str) -> Kept:
    """
    Args:
        key: under which a row has the method.

    Raises:
        InputError: there is no row, or one is of another method or track than the file.
    """
    found = Kept(path.parent.name, path.name.removesuffix(ROWS), rows, path)
    if not rows:
        raise damaged(path, " has no row")
    for row in rows:
        method, track = row[key], Path(row["track"]).stem  # a track may have been named by its file
        if (method, track) != (found.method, found.track):
            raise damaged(path, f" has a row of {method} on {f'the track {track}' if track else 'no track'}")
    return found


def damaged(path: Path, what: str) -> InputError:
    again = f"make record TRACK={path.parent.name} METHOD={path.name.removesuffix(ROWS)}"
    return InputError(f"{path}{what}; get the file again, or run {again}.")


def picture(track: str, method: str) -> Path:
    """Where the first images of a method on a track are."""
    return RECORD / track / f"{method}.webp"


def picture_beside(place: Path) -> Path | None:
    """The first images of a method whose rows stand at a place that `beside` gave; None for any other place."""
    found = picture(place.parent.name, place.name)
    return found if place == found.with_suffix("") and found.is_file() else None


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
    """The rows of the record in the settings of some rows, controls too, and where each stands.

    Rows that say a track have none of another version of it beside them.
    The code of the victim or of the defense may have changed since, as by a comment, without another result, which
    would have raised the version of the track or the protocol: these rows get the digests of `CODE` that the others
    have.
    """
    keys = (*(key for key in row_keys("setting") if key not in CODE), "protocol")

    def setting(row: FlatRow) -> tuple[str, ...]:
        return tuple(str(row.get(key)) for key in keys)

    digests = defaultdict(set)
    for row in rows:
        digests[setting(row)].add(tuple(row[key] for key in CODE))
    for path in sorted(RECORD.glob(f"*/*{ROWS}")):
        first = first_row(path)  # all rows of a file have one setting
        there = sorted(digests.get(setting(first), ()))
        versions = {row["track_version"] for row in rows if row["track"] and row["track"] == first.get("track")}
        if not there or (versions and first.get("track_version", 1) not in versions):
            continue
        recorded = read_file(path)
        for row in recorded.rows:
            for now in there:
                yield row | dict(zip(CODE, now, strict=True)), RECORD / recorded.track / recorded.method


def first_row(path: Path) -> FlatRow:
    """
    Raises:
        InputError: the file is damaged.
    """
    with intact(path), gzip.open(path, "rt") as file:
        row = json.loads(file.readline() or "{}")
        return row if isinstance(row, dict) else {}
