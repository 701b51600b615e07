"""Two starts of one run at the same time."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from benchmark.__main__ import main
from benchmark.launch.lock import alone, still_there
from victims.errors import InputError

COMMAND = ("--attack=ig", "--steps=2", "--tasks=1", "--batch=1", "--victim=lenet", "--defense=none", "--devices=1")
HOLD = """
import sys, time
from pathlib import Path
from benchmark.launch.lock import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def test_the_second_start_says_that_the_first_is_at_work(tmp_path, capsys):
    def run():
        return main(["run", *COMMAND, "--wandb=off", f"--out={tmp_path}"])

    assert run() == 0
    (folder,) = tmp_path.iterdir()
    before = {path.name for path in folder.iterdir()}
    assert "lock" not in before
    rows = (folder / "rows.jsonl").read_bytes()
    capsys.readouterr()
    with alone(folder):
        assert run() == 2
        printed = capsys.readouterr()
        (line,) = [line for line in printed.err.splitlines() if line.startswith("benchmark: ")]
        assert f"is being worked on by process {os.getpid()} on {socket.gethostname()}" in line
        assert printed.out == ""
    assert run() == 0
    assert (folder / "rows.jsonl").read_bytes() == rows
    assert {path.name for path in folder.iterdir()} == before


def test_two_files_of_one_folder_are_written_at_the_same_time_but_not_one_twice(tmp_path):
    twice = pytest.raises(InputError, match=r"a\.txt is being worked on")
    with alone(tmp_path, "a.txt"), alone(tmp_path, "b.txt"), alone(tmp_path), twice, alone(tmp_path, "a.txt"):
        pass
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_is_none(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"process {process.pid} on"), alone(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert (tmp_path / "lock").exists()
    with alone(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / "lock").read_text()
    assert not list(tmp_path.iterdir())


def test_of_ten_starts_at_once_one_works_at_a_time(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom benchmark.launch.lock import alone\n"
        "from victims.errors import InputError\nfolder = Path(sys.argv[1])\nfor _ in range(200):\n"
        "    try:\n        with alone(folder / 'run'):\n            (folder / 'inside').mkdir()\n"
        "            (folder / 'inside').rmdir()\n    except InputError:\n        pass\n"
    )
    starts = [subprocess.Popen([sys.executable, "-c", code, tmp_path]) for _ in range(10)]
    assert [start.wait(timeout=120) for start in starts] == [0] * 10


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_a_notice(number, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert main(["run", *COMMAND, "--wandb=off", f"--out={tmp_path}"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "without locks" in line]
    assert line.startswith("benchmark: ")
    assert os.strerror(number) in line
    (folder,) = tmp_path.iterdir()
    names = {path.name for path in folder.iterdir()}
    assert "rows.jsonl" in names
    assert "lock" not in names


def test_a_file_that_was_removed_or_replaced_is_not_there(tmp_path):
    path = tmp_path / "lock"
    with path.open("a+") as file:
        assert still_there(file, path)
        path.unlink()
        assert not still_there(file, path)
        path.touch()
        assert not still_there(file, path)
