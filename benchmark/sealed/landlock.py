"""Limits of files that the kernel of Linux holds for this process: for native code too, and nothing takes them back.

See the kernel's documentation of Landlock, userspace-api/landlock. Numbers of calls are the same on every machine.
"""

import ctypes
import os
import sys
from collections.abc import Iterable
from contextlib import suppress

CREATE, ADD, RESTRICT, NO_NEW_PRIVILEGES = 444, 445, 446, 38
VERSION, BENEATH = 1, 1
WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1}  # rights that are handled, by version; from 3 on those below
LATER = (1 << 15) - 1


class Rules(ctypes.Structure):
    """What is refused unless a rule allows it: rights on files, on TCP, and on what other processes own."""

    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class Rule(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("rights", ctypes.c_uint64), ("place", ctypes.c_int32)]


def version() -> int:
    """The version of Landlock that the kernel has; 0 where it has none."""
    if sys.platform != "linux":
        return 0
    return max(0, ctypes.CDLL(None).syscall(CREATE, None, ctypes.c_size_t(0), VERSION))


def restrict(readable: Iterable[str], listed: Iterable[str], own: Iterable[str]) -> bool:
    """From now on this thread, and those that it starts, reach these paths alone; False if the system cannot do it.

    Args:
        readable: files.
        listed: folders whose names, and those below, can be read.
        own: folders and devices where everything is allowed.

    Raises:
        OSError: the system refuses it.
    """
    if not (can := version()):
        return False
    library = ctypes.CDLL(None, use_errno=True)
    call, handled = library.syscall, ALL.get(can, LATER)
    rules = Rules(handled, 3 if can >= 4 else 0, 3 if can >= 6 else 0)
    size = 8 if can < 4 else 16 if can < 6 else 24
    ruleset = call(CREATE, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    for rights, paths in ((READ_FILE, readable), (READ_DIR, listed), (handled, own)):
        for path in paths:
            with suppress(FileNotFoundError):
                place = os.open(path, os.O_PATH)
                of_file = WRITE_FILE | READ_FILE | TRUNCATE
                allowed = rights if os.path.isdir(path) else rights & handled & of_file
                call(ADD, ruleset, BENEATH, ctypes.byref(Rule(allowed, place)), 0)
                os.close(place)
    library.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if call(RESTRICT, ruleset, 0):
        raise OSError(ctypes.get_errno(), "the kernel's limits of files cannot be set")
    os.close(ruleset)
    return True
