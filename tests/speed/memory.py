"""`python -m tests.speed.memory suite|plain CELL`: the most memory that steps take, measured in a fresh process.

Printed as JSON by stage, in bytes, in addition to the memory used before the attack began: `tensors`, exactly; and on a
CPU `resident`, of the process, which small steps do not change. Temporary memory of setting up a task is not counted;
memory that it keeps is. A plain loop is one restart, since restarts run one after another.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmark.run import reproducible
from tests.plain.forms import plain
from tests.speed.cells import Cell, plan_of
from victims.errors import InputError

STEPS = 2  # from the second on the optimizer has its state
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # glibc gives back what is free
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peaks(who: str, cell: Cell) -> dict[str, dict[str, int | None]]:
    """By stage, in a separate process.

    Raises:
        InputError: the process died; its last line says why.
    """
    command = [sys.executable, "-m", "tests.speed.memory", who, json.dumps(asdict(cell))]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ALLOCATOR, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["killed"])[-1]
        raise InputError(f"the memory of {cell} could not be measured: {why}; measure other cells, or free memory.")
    return json.loads(done.stdout.splitlines()[-1])


def ready(who: str, cell: Cell, stage: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A function that sets up the task, and one that takes a step."""
    attack = cell.attack(stage)
    if who == "suite":
        return lambda: attack.begin([cell.observation]), attack.advance
    attack.begin([cell.observation])
    loop = plain(attack)[0]
    return lambda: None, lambda: next(loop)


def of_stage(who: str, cell: Cell, stage: str) -> dict[str, int | None]:
    """Of the first steps of a stage; the first of the two measurements also loads what is loaded only once."""
    count = list(plan_of(cell)).index(stage) + STEPS
    tensors = gpu_peak if torch.cuda.is_available() else tensor_peak
    found = {"tensors": tensors(*ready(who, cell, stage), count)}
    gc.collect()
    return {**found, "resident": None if torch.cuda.is_available() else resident_peak(*ready(who, cell, stage), count)}


def gpu_peak(begin: Callable[[], Any], step: Callable[[], Any], count: int) -> int:
    before = torch.cuda.memory_allocated()
    begin()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(count):
        step()
    return torch.cuda.max_memory_allocated() - before


def tensor_peak(begin: Callable[[], Any], step: Callable[[], Any], count: int) -> int:
    """From every allocation on the CPU that torch's profiler records, also in compiled code."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        begin()
        with record_function("steps"):
            for _ in range(count):
                step()
    events = sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    start = next(event.start_ns() for event in events if event.name() == "steps")
    live, most = 0, 0
    for event in events:
        if event.name() == "[memory]":
            live += event.nbytes()
            if event.start_ns() >= start:
                most = max(most, live)
    return most


def resident_peak(begin: Callable[[], Any], step: Callable[[], Any], count: int) -> int | None:
    """Of the process; None if the system does not report it. It is too small if the system reclaims cold pages."""
    if not RESET.exists():
        return None
    before = status("VmRSS")
    begin()
    RESET.write_text("5")  # the peak is counted from here
    for _ in range(count):
        step()
    return status("VmHWM") - before


def status(name: str) -> int:
    """A figure of this process, in bytes."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(name))


if __name__ == "__main__":
    reproducible()
    cell = Cell(**json.loads(sys.argv[2]))
    cell.observation  # noqa: B018, captured before anything is counted
    print(json.dumps({stage: of_stage(sys.argv[1], cell, stage) for stage in plan_of(cell)}))
