"""Which folder a run goes into: its options name it, and a folder that has rows of other contents is left as it is.

`NAME`, `NAME-2`, `NAME-3`, ... are runs with the same options. Each has a record of the code, weights and images that
its rows are of, so that with the old contents the old folder is found again. Only the first process of a run chooses,
under the folder's lock, and the others follow.
"""

import itertools
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmark.launch.lock import Busy, alone
from benchmark.launch.strategy import STARTER, Heartbeat
from leaderboard.run_folder import Contents, RunFolder, latest, version, versions
from victims.data.base import some
from victims.errors import InputError, Notice

LOOK = 0.1  # seconds between two looks
SETTLED = 20  # looks, after which a start that holds a lock has written its record


def claim(base: Path, found: Contents, held: ExitStack) -> RunFolder:
    """The folder for rows of these contents, whose lock `held` then holds. A Notice says why it is not `base`.

    Raises:
        Busy: another start of the same run is at work.
        OSError: the folder cannot be written.
    """
    before = latest(base)
    for folder in candidates(base, found):
        with ExitStack() as lock:
            try:
                lock.enter_context(alone(folder.path))
            except Busy:
                if settled(folder, found):
                    raise
                continue
            record = folder.read_contents()
            if folder.has_rows() and not agree(record, found):  # of another start, since the candidates were listed
                continue
            if before and not folder.has_rows():
                rows = before.read_contents()
                why = f"{some(changed(rows, found))} changed since" if rows else "it is not known what went into"
                line = f"{why} the rows in {before.path}; they stay, and this run goes into {folder.path}."
                warnings.warn(line, Notice, stacklevel=2)
            folder.write_contents(merged(record, found) if agree(record, found) else found)
            held.push(lock.pop_all())
            return folder
    raise AssertionError("candidates have no end")


def follow(base: Path, found: Contents) -> RunFolder:
    """For every process but the first: the folder that the first one has chosen, which is waited for.

    Raises:
        InputError: the first process has other contents.
    """
    until = time.monotonic() + (0 if STARTER in os.environ else Heartbeat.start)  # a launched process comes later
    while True:
        for folder in versions(base).values():
            if agree(folder.read_contents(), found):
                return folder
        if time.monotonic() > until:
            raise InputError(
                f"the first process of this run has no folder {base} with the contents that this one found; start it "
                "again, and let nothing that goes into it be random or change meanwhile."
            )
        time.sleep(LOOK)


def candidates(base: Path, found: Contents) -> Iterator[RunFolder]:
    """Those whose rows are of these contents, then those without rows, then new ones."""
    there = versions(base)
    yield from (folder for folder in there.values() if agree(folder.read_contents(), found))
    yield from (folder for folder in there.values() if not folder.has_rows())
    yield from (version(base, number) for number in itertools.count(1) if number not in there)


def settled(folder: RunFolder, found: Contents) -> bool:
    """Whether the start that holds the lock of a folder has these contents; it writes its record first of all."""
    for _ in range(SETTLED):
        record = folder.read_contents()
        if agree(record, found):
            return True
        if record is not None and folder.has_rows():
            return False
        time.sleep(LOOK)
    return record is None


def agree(record: Contents | None, found: Contents) -> bool:
    """Whether there is a record, and all that both name is the same."""
    return record is not None and not changed(record, found)


def changed(record: Contents, found: Contents) -> list[str]:
    """What of the contents of a run is not as the record says."""
    return [
        what
        for kind, parts in found.items()
        for what, digest in parts.items()
        if record.get(kind, {}).get(what, digest) != digest
    ]


def merged(record: Contents | None, found: Contents) -> Contents:
    """With the tasks of a longer run that the record has."""
    return {kind: {**(record or {}).get(kind, {}), **parts} for kind, parts in found.items()}
