"""The process of a sealed attack reads code and its own folder, by a hook and by the kernel."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data

from benchmark.names import ROOT
from benchmark.sealed import landlock, limits
from benchmark.sealed.limits import PROCESSORS, code, confine, guard


class Changing(str):
    """A text that is another one when it is asked for parts of it."""


PICTURE = Path(skimage.data.__file__).parent / "astronaut.png"


@pytest.fixture
def hook(tmp_path):
    """Of a process that may read one file, and has a folder of its own."""
    (tmp_path / "own" / "below").mkdir(parents=True)
    (tmp_path / "readable").mkdir()
    (tmp_path / "readable" / "file").write_text("code")
    (tmp_path / "own" / "out").symlink_to(PICTURE)
    readable = frozenset([str(tmp_path / "readable" / "file")])
    return guard(readable, frozenset([str(tmp_path / "readable")]), str(tmp_path / "own"))


def test_code_has_no_picture():
    files = set(code())
    assert str(ROOT / "attacks" / "ig.py") in files
    assert {os.path.realpath(skimage.data.__file__), f"{os.path.realpath(skimage.__file__)}i"} <= files  # .py and .pyi
    assert os.path.realpath(PICTURE) not in files
    assert not [file for file in files if file.endswith((".png", ".jpg", ".npz", ".npy", ".gz", ".webp", ".pt"))]
    assert not [file for file in files if f"{ROOT}/tests/" in file]


@pytest.mark.parametrize(
    ("event", "values"),
    [
        ("open", (str(PICTURE), "rb", 0)),
        ("open", (os.fsencode(PICTURE), "rb", 0)),
        ("open", ("{}/own/out", "rb", 0)),
        ("open", ("{}/own/../readable/file", "w", os.O_WRONLY)),
        ("open", ("{}/readable/file", None, os.O_RDWR)),
        ("open", ("{}/own/below", None, os.O_RDONLY)),
        ("open", ("{}/ownother", "w", os.O_WRONLY)),
        ("open", ("/proc/self/mem", "rb", 0)),
        ("os.listdir", ("{}",)),
        ("os.scandir", ("/",)),
        ("subprocess.Popen", ("ls", [], None, None)),
        ("os.system", (b"ls",)),
        ("os.symlink", ("a", "b", -1)),
        ("open", (Changing("{}/readable/file"), "rb", 0)),
        ("open", (PICTURE, "rb", 0)),
        ("os.listdir", (Path("/proc"),)),
        ("os.remove", ("{}/readable/file", -1)),
        ("os.mkdir", ("{}/new", 511, -1)),
        ("os.rmdir", (b"/tmp", -1)),
        ("os.truncate", ("{}/own/out", 0)),
        ("os.truncate", (3, 0)),
        ("os.chmod", ("{}/readable/file", 0, -1)),
        ("os.utime", ("{}/readable/file", None, None, -1)),
        ("os.setxattr", ("{}/readable/file", "user.x", b"1", 0)),
        ("resource.prlimit", (1, 1, (0, 0))),
        ("socket.connect", (None, ("127.0.0.1", 1))),
        ("socket.sendmsg", (None, ("127.0.0.1", 1))),
        ("socket.__new__", (None, 2, 2, 0)),
        ("ctypes.dlopen", (None,)),
        ("object.__setattr__", (None, "__code__", None)),
    ],
)
def test_what_is_refused(hook, tmp_path, event, values):
    values = tuple(type(v)(v.replace("{}", str(tmp_path))) if isinstance(v, str) else v for v in values)
    with pytest.raises(PermissionError) as refused:
        hook(event, values)
    assert refused.value.errno == errno.EACCES


@pytest.mark.parametrize(
    ("event", "values"),
    [
        ("open", ("{}/readable/file", "r", 0)),
        ("open", ("{}/own/below/new", "w", os.O_WRONLY)),
        ("open", (3, "r", 0)),
        ("os.listdir", ("{}/readable",)),
        ("os.scandir", ("{}/own/below",)),
        ("os.mkdir", ("{}/own/below/new", 511, -1)),
        ("os.remove", ("{}/own/below/old", -1)),
        ("import", ("json", None, None, None, None)),
    ],
)
def test_what_is_allowed(hook, tmp_path, event, values):
    hook(event, tuple(v.replace("{}", str(tmp_path)) if isinstance(v, str) else v for v in values))


def test_torch_can_ask_which_instructions_there_are(tmp_path, monkeypatch):
    """Some operations do it when they are first called, and fail otherwise."""
    hooks = []
    for module, name in (("_posixsubprocess", "fork_exec"), ("subprocess", "_fork_exec")):
        monkeypatch.setattr(f"{module}.{name}", getattr(sys.modules[module], name))  # put back afterwards
    monkeypatch.setattr(limits, "restrict", lambda *paths: True)
    monkeypatch.setattr(sys, "addaudithook", hooks.append)
    confine([], tmp_path)
    (hook,) = hooks
    hook("open", ("/proc/cpuinfo", "r", 0))
    hook("os.listdir", (PROCESSORS,))
    for event, values in (("open", ("/proc/self/mem", "r", 0)), ("os.listdir", ("/proc",))):
        with pytest.raises(PermissionError):
            hook(event, values)


PROCESS = """
import _posixsubprocess
import io
import os
import sys
from multiprocessing.util import spawnv_passfds
from pathlib import Path

import torch
from benchmark.sealed import limits

limits.restrict = lambda *paths: False
limits.confine([], Path.cwd())
for each in (
    lambda: spawnv_passfds(b"/bin/touch", [b"touch", b"made"], []),
    lambda: sys.modules["subprocess"]._fork_exec(),
    lambda: io.FileIO(Path(sys.argv[1])),
):
    try:
        each()
    except PermissionError as error:
        print(error.errno)
"""


def test_the_hook_alone_holds_processes_and_paths_of_any_type(tmp_path):
    command = [sys.executable, "-c", PROCESS, str(PICTURE)]
    given = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(errno.EACCES)] * 3
    assert not (tmp_path / "made").exists()


NATIVE = """
import sys
import torch
from benchmark.sealed.landlock import restrict

restrict([sys.argv[1]], [], [sys.argv[3]])
torch.from_file(sys.argv[1], size=1)
open(f"{sys.argv[3]}/new", "w").close()
try:
    torch.from_file(sys.argv[2], size=1)
except RuntimeError as error:
    print(error)
"""


@pytest.mark.skipif(not landlock.version(), reason="the system has no Landlock")
def test_native_code_is_held_by_the_kernel(tmp_path):
    (tmp_path / "own").mkdir()
    weights = sorted((ROOT / "priors" / "weights").glob("*.safetensors"))[:2]
    command = [sys.executable, "-c", NATIVE, *map(str, weights), str(tmp_path / "own")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Permission denied" in ended.stdout
    assert (tmp_path / "own" / "new").exists()
