"""What the process of a sealed attack can reach: code, the weights of networks, and a folder of its own.

Two limits, of which nothing can be taken back:

- A hook of Python's audit events refuses other files and folders, other processes, sockets and native calls. It holds
  on every system for what is written in Python. It does not see native code of a package that opens a file by itself,
  nor calls that raise no event, as those for the size and time of a file, a link's target, and a process's priority;
  and code that is written against this hook, such as one that replaces `os.path` or makes a second
  `_posixsubprocess`, gets around it.
- Linux from 5.13 on holds the same limits of files for native code too, see `benchmark.sealed.landlock`.

Neither sees what an attack carries in its own file or weights, such as a public data set: their sizes tell. Where more
is at stake, run the three pieces on different machines: nothing of the truth is on the one that attacks.
"""

import errno
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path, PosixPath, WindowsPath
from typing import Any, NoReturn

from benchmark.names import ROOT
from benchmark.sealed.landlock import restrict
from benchmark.sources import PROJECT

CODE = (
    *(".py", ".pyi", ".pyc", ".dylib"),  # of stubs too: a package that loads its modules late reads their names there
    *(".json", ".yaml", ".toml", ".cfg", ".txt", ".css", ".html", ".js", ".safetensors"),
)
"""What files of packages end with that are code, text that belongs to it, or weights."""

PROCESSORS = "/sys/devices/system/cpu"
ALWAYS = ("/dev/null", "/dev/urandom", "/proc/cpuinfo", PROCESSORS)  # torch asks which instructions there are
REFUSED = (
    *("subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "pty."),
    *("os.chdir", "os.fchdir", "os.kill", "os.link", "os.rename", "os.symlink", "signal.pthread_kill"),
    *("os.chflags", "os.chown", "os.lchown", "os.setxattr", "os.removexattr", "resource."),
    *("socket.", "sqlite3.", "ctypes."),
)
"""Beginnings of the names of events."""

CHANGES = ("os.chmod", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.utime")
"""Events of a path, which are refused outside the own folder."""


def confine(files: Iterable[Path], own: Path) -> str:
    """From now on this process reaches code, these files, and its own folder.

    Args:
        files: that can be read besides code.

    Returns:
        what holds it there, in words.
    """
    readable = frozenset({*code(), *(os.path.realpath(file) for file in files)})
    listed = frozenset({PROCESSORS, *(os.path.dirname(path) for path in readable)})
    readable, folder = readable.union(ALWAYS), os.path.realpath(own)
    by_kernel = restrict(readable, listed, [folder, "/dev/null", *nvidia()])
    sys.addaudithook(guard(readable, listed, folder))
    for module, name in (("_posixsubprocess", "fork_exec"), ("subprocess", "_fork_exec")):
        if module in sys.modules:
            setattr(sys.modules[module], name, no_process)
    return "an audit hook and the kernel" if by_kernel else "an audit hook alone: native code is not held"


def code() -> Iterator[str]:
    """The files of Python, of the packages, and of this project, without their images and other data."""
    paths = sysconfig.get_paths()
    roots = {os.path.realpath(paths[name]) for name in ("stdlib", "purelib", "platlib")}
    roots |= {str(ROOT / package) for package in PROJECT if package != "tests"}
    for folder, _, names in (each for root in sorted(roots) for each in os.walk(root)):
        described = folder.endswith(".dist-info")
        for name in names:
            if name.endswith(CODE) or ".so" in name or described:
                yield os.path.join(folder, name)


def no_process(*_: object) -> NoReturn:
    """In place of what starts a process without an event."""
    refuse("another process")


def refuse(what: object) -> NoReturn:
    raise PermissionError(errno.EACCES, "out of reach of a sealed attack", str(what))


def nvidia() -> list[str]:
    """The devices of GPUs."""
    return [str(path) for path in Path("/dev").glob("nvidia*")]


def guard(readable: frozenset[str], listed: frozenset[str], own: str) -> Any:
    """The audit hook."""

    def inside(path: str) -> bool:
        return path == own or path.startswith(own + os.sep)

    def real(path: object) -> str:
        """Of what cannot be another path when it is asked again."""
        if type(path) not in (str, bytes, PosixPath, WindowsPath):
            refuse(path)
        return os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if event.startswith(REFUSED):
            refuse(event)
        elif event in CHANGES:
            if not inside(real(values[0])):
                refuse(values[0])
        elif event == "open" and not isinstance(values[0], int):
            path, (_, mode, flags) = real(values[0]), values
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR)) or not set(mode or "").isdisjoint("wax+")
            # A folder is not opened: names relative to it would be taken for others.
            if not (inside(path) and not os.path.isdir(path)) and (writes or path not in readable):
                refuse(values[0])
        elif event in ("os.listdir", "os.scandir") and not isinstance(values[0], int):
            path = real(values[0] or ".")
            if not inside(path) and path not in listed:
                refuse(values[0])
        elif event == "object.__setattr__" and values[1] == "__code__":
            refuse(event)  # of this hook

    return hook
