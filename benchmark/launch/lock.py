"""One start of a run at a time: two that work in one folder would do the same tasks twice and merge over each other."""

import fcntl
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from victims.errors import InputError, Notice

LOCK = "lock"


class Busy(InputError):
    """Another start is at work in the folder."""


@contextmanager
def alone(folder: Path, out: str = "") -> Iterator[None]:
    """Hold the lock of a run's folder, which is made where it is missing, or of one file in it.

    The system drops the lock of a process that has ended however it ended, so a file that was left behind is no lock.
    Where the file system has no locks, as some of clusters, a notice says so and the run goes on without.

    Args:
        out: the file that is written, where others in the folder may be written at the same time.

    Raises:
        Busy: another start is at work; one line says on which host, and in which process.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"{out}.{LOCK}" if out else LOCK)
    while True:
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                at_work = f"{folder / out} is being worked on by {holder}"
                raise Busy(f"{at_work}; wait for it, or stop it: the same command then goes on.") from None
            except OSError as error:
                lacks = (
                    f"{folder} lies on a file system without locks ({error.strerror}); run one start at a time there."
                )
                warnings.warn(lacks, Notice, stacklevel=1)
            if not still_there(file, path):
                continue  # its holder has just removed it
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def writable(folder: Path, option: str = "--out") -> Path:
    """The folder, which is made where it is missing.

    Args:
        option: what named it.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}); choose another {option}.") from None
    return folder


def still_there(file: IO[str], path: Path) -> bool:
    """Whether an open file still lies at the path; another process can remove it at any moment."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
