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
    assert os.path.realpath(skimage.data.__file__) in files
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
        ("socket.connect", (None, ("127.0.0.1", 1))),
        ("ctypes.dlopen", (None,)),
        ("object.__setattr__", (None, "__code__", None)),
    ],
)
def test_what_is_refused(hook, tmp_path, event, values):
    values = tuple(v.replace("{}", str(tmp_path)) if isinstance(v, str) else v for v in values)
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
        ("import", ("json", None, None, None, None)),
    ],
)
def test_what_is_allowed(hook, tmp_path, event, values):
    hook(event, tuple(v.replace("{}", str(tmp_path)) if isinstance(v, str) else v for v in values))


def test_torch_can_ask_which_instructions_there_are(tmp_path, monkeypatch):
    """Some operations do it when they are first called, and fail otherwise."""
    given = []
    monkeypatch.setattr(limits, "restrict", lambda *paths: given.append(paths))
    monkeypatch.setattr(sys, "addaudithook", lambda hook: None)
    confine([], tmp_path)
    ((readable, listed, _),) = given
    assert {"/proc/cpuinfo", PROCESSORS} <= readable
    assert PROCESSORS in listed
    assert "/proc" not in listed


NATIVE = """
import sys
import numpy
from benchmark.sealed.landlock import restrict
from safetensors import safe_open

restrict([sys.argv[1]], [], [sys.argv[3]])
safe_open(sys.argv[1], "np")
open(f"{sys.argv[3]}/new", "w").close()
try:
    safe_open(sys.argv[2], "np")
except Exception as error:
    print(error)
"""


@pytest.mark.skipif(not landlock.version(), reason="the system has no Landlock")
def test_native_code_is_held_by_the_kernel(tmp_path):
    (tmp_path / "own").mkdir()
    weights = sorted((ROOT / "priors" / "weights").glob("*.safetensors"))[:2]
    command = [sys.executable, "-c", NATIVE, *map(str, weights), str(tmp_path / "own")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout  # what it says of a file that it cannot open
    assert (tmp_path / "own" / "new").exists()
