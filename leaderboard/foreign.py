"""Files of other people: read with bounds, so that none of them can stop or fill the reader."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

LARGEST, DEEPEST, MOST = 2**30, 8, 2**63  # bytes of a file, levels of a value, magnitude of an integer


def contents(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: it is missing, larger than `LARGEST`, or no regular file: a pipe would never end.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if found.st_size > LARGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return path.read_bytes()


def checked(value: Any, levels: int = DEEPEST) -> Any:
    """The value itself, of JSON or YAML, if it can be sorted, printed and written.

    Raises:
        ValueError: it is nested too deeply, or holds an integer that is too large, or text that is not Unicode.
    """
    if levels == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        value.encode()  # UnicodeEncodeError is a ValueError
    elif isinstance(value, int) and abs(value) >= MOST:
        raise ValueError("too large an integer")
    elif isinstance(value, dict):
        for key, item in value.items():
            checked(key, levels - 1)
            checked(item, levels - 1)
    elif isinstance(value, list):
        for item in value:
            checked(item, levels - 1)
    return value
