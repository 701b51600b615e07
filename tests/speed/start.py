"""`python -m tests.speed.start CELL`: what a run costs before its second step, measured in a fresh process, as JSON.

Seconds of processor time, of a GPU by the wall: of the imports, of the task (victim, images, update), of `begin`, which
tries the victim and finds its gradient paths, and of the first step. `memory` is the most that the process grew in
`begin`, in bytes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from victims.errors import InputError

if TYPE_CHECKING:
    from tests.speed.cells import Cell

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # glibc gives back what is free
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def start(cell: "Cell") -> dict[str, Any]:
    """Of a run in a fresh process.

    Raises:
        InputError: the process died; its last line says why.
    """
    command = [sys.executable, "-m", "tests.speed.start", json.dumps(asdict(cell))]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ALLOCATOR, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["killed; measure other cells."])[-1]
        raise InputError(f"the start of {cell} could not be measured: {why}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(given: str) -> dict[str, Any]:
    clock, taken = time.process_time, {}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        began = clock()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken[what] = clock() - began

    import torch

    from benchmark.device import reproducible
    from tests.speed.cells import Cell

    taken["import"] = clock()
    if torch.cuda.is_available():
        clock = time.perf_counter
    reproducible()
    cell = Cell(**json.loads(given))
    with timed("task"):
        attack, observation = cell.attack(), cell.observation
    before = status("VmRSS")
    if RESET.exists():
        RESET.write_text("5")  # the peak is counted from here
    with timed("begin"):
        attack.begin([observation])
    peak = status("VmHWM")
    with timed("first_step"):
        attack.advance()
    return {**taken, "memory": peak - before if before and peak else None}


def status(name: str) -> int | None:
    """A figure of this process, in bytes; None if the system does not report it."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


if __name__ == "__main__":
    try:
        print(json.dumps(measure(sys.argv[1])))
    except InputError as error:
        sys.exit(str(error))
