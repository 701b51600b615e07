"""Ctrl-C and SIGTERM: one line and the exit code that a shell expects; nothing goes on in the background."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmark.launch.stop import Stopped, stoppable

ROOT = Path(__file__).resolve().parents[3]
LONG = ["--attack=ig", "--steps=100000", "--tasks=2", "--victim=lenet", "--compile=off", "--wandb=off", "--devices=1"]


def start(out, *options):
    command = [sys.executable, "-m", "benchmark", "run", *LONG, f"--out={out}", *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(happened):
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def said(process):
    _, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    return [line for line in stderr.splitlines() if line.startswith("benchmark: ")]


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
@pytest.mark.parametrize("when", ["start-up", "attack"])
def test_a_stopped_run_ends_with_one_line_and_the_code_of_its_signal(when, number, name, tmp_path):
    process = start(tmp_path)
    loaded = Path(f"/proc/{process.pid}/maps")
    if when == "start-up":
        until(lambda: "libtorch" in loaded.read_text())
    else:
        until(lambda: list(tmp_path.glob("*/processes/0")))
    process.send_signal(number)
    assert said(process) == [f"benchmark: stopped by {name}."]
    assert process.returncode == 128 + number


def test_a_killed_matrix_leaves_no_cell_behind(tmp_path):
    process = start(tmp_path, "--defense=none,sparsification:0.5")
    until(lambda: list(tmp_path.glob("*/lock")))
    (lock,) = tmp_path.glob("*/lock")
    until(lambda: lock.read_text())
    cell = int(lock.read_text().split()[1])
    assert cell != process.pid
    process.kill()
    process.communicate(timeout=60)  # returns when the cell has closed its pipes
    until(lambda: not Path(f"/proc/{cell}").exists())


def failing_to_handle(event):
    with stoppable():
        try:
            event()
        except BaseException:
            raise RuntimeError("clean-up of something that was only half there") from None


def test_an_error_while_a_stop_is_handled_is_the_stop():
    with pytest.raises(Stopped) as stopped:
        failing_to_handle(lambda: signal.raise_signal(signal.SIGTERM))
    assert stopped.value.code == 128 + signal.SIGTERM


def test_an_error_after_a_stop_that_was_swallowed_is_the_stop():
    """As of a library that tries an import and uses what it finds half loaded."""

    @stoppable()
    def load():
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        raise AttributeError("half loaded")

    with pytest.raises(Stopped):
        load()


def test_signals_are_handled_before_anything_heavy_is_imported():
    code = "import sys, benchmark.__main__; print(*({'jsonargparse', 'yaml', 'typing', 'torch'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_any_other_error_is_itself():
    with pytest.raises(RuntimeError, match="clean-up"):
        failing_to_handle(lambda: 1 / 0)
