"""The most memory that tensors take in the steps of a stage, in addition to what there was before its set-up.

Temporary memory of the set-up is not counted; memory that it keeps is. A loop of another form is one restart, since
restarts run one after another.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from attacks.base import Attack
from tests.plain.forms import plain
from tests.speed.cells import SUITE, TEXTBOOK, Cell, begin, shorten

os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler says nothing of its own starts and stops
STEPS = 2  # from the second on the optimizer has its state


def of_stage(attack: Attack, cell: Cell, stage: str) -> dict[str, int]:
    """Bytes, of the suite and of the textbook's loop."""
    before = shorten(attack, stage)
    loop = plain(attack, TEXTBOOK)[0]
    peak = gpu_peak if torch.cuda.is_available() else tensor_peak
    return {
        SUITE: peak(lambda: begin(attack, stage, cell.observation), attack.advance, STEPS),
        TEXTBOOK: peak(lambda: None, lambda: next(loop), before + STEPS),
    }


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
