"""Ctrl-C and SIGTERM: one line, and the exit code that a shell expects. No heavy import: it holds during start-up."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PARENT = "GIBENCH_PARENT"  # process id, in the environment of a cell that a matrix starts


class Stopped(BaseException):
    """The user or the system asked this process to end. Not an Exception: nobody handles it on the way."""

    def __init__(self, number: int, where: str = "") -> None:
        self.number, self.where = number, where

    @property
    def code(self) -> int:
        return 128 + self.number

    def __str__(self) -> str:
        return f"stopped {self.where or ('by Ctrl-C' if self.number == signal.SIGINT else 'by SIGTERM')}."


@contextmanager
def stoppable() -> Iterator[None]:
    """A context in which SIGINT and SIGTERM raise `Stopped`, and which ends with the matrix that started this process.

    Raises:
        Stopped: in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    parent = int(os.environ.pop(PARENT, os.getpid()))
    if parent != os.getpid():
        threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()

    stops: list[Stopped] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stops.append(Stopped(number))
        raise stops[-1]

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Exception:
        if stops:  # an error of what was left half done: a module's import, Lightning's clean-up
            raise stops[0] from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent(parent: int) -> None:
    """End this process when the one that started it has ended: a killed run must not continue in the background."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
