"""Files that are whole whenever they are read, and names that every file system takes."""

import hashlib
import os
import secrets
import socket
from pathlib import Path

LONGEST = 255  # bytes of a file's name, in all common file systems


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old file or the new one, also when the process or the machine is killed.

    No two writers share a partial file: its name has the host, the process and a random part.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".partial-{of_this_process()}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # before the file has its name, which says that it is whole
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def of_this_process() -> str:
    """Part of a file's name that no other process, machine or call has."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def flat_name(image: str) -> str:
    """The name of an image without folders, so that `a/1` and `b/1` have files of their own."""
    last = Path(image).name
    return image if image == last else f"{last}-{hashlib.sha256(image.encode(errors='surrogatepass')).hexdigest()[:16]}"


def file_name(name: str, suffix: str) -> str:
    """A file for what has this name: the last part of it, for a foreign row may hold a path that leads elsewhere.

    A name that is too long for a file is cut, and ends in a digest of all of it.
    """
    file = Path(name + suffix).name
    if len(file.encode(errors="surrogatepass")) <= LONGEST:
        return file
    start = name.encode(errors="replace")[: LONGEST // 2].decode(errors="ignore")
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
    return Path(f"{start}-{digest}{suffix}").name
