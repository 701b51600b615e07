"""The work of an audit: its runs in several processes at once, until the time is spent."""

import contextlib
import io
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, get_args

import torch

from benchmark.audit.estimate import LABELS, Probe, configured
from benchmark.audit.plan import Plan
from benchmark.audit.report import duration
from benchmark.audit.verdicts import Shown
from benchmark.config import Config
from benchmark.device import reproducible
from benchmark.labels import recovered
from benchmark.launch.stop import end_with_parent
from benchmark.run import run
from leaderboard.options import Control
from leaderboard.rows import FlatRow
from leaderboard.run_folder import RunFolder
from victims.contract import refusal
from victims.errors import Notice, Unfinished


@dataclass(frozen=True)
class Job:
    """One run: an attack, or its control, on all tasks under one defense; or the labels that an update reveals.

    Attributes:
        labels: methods that read them, for `LABELS`.
        seconds: estimated.
    """

    attack: str
    config: Config
    seconds: float
    labels: tuple[str, ...] = ()

    @property
    def is_control(self) -> bool:
        return self.config.control != "none"

    def __str__(self) -> str:
        control = ", control" if self.is_control else ""
        return f"{self.attack}, {self.config.defense}{control}"


@dataclass(frozen=True)
class Done:
    """What became of a job.

    Attributes:
        rows: one per image; of labels one per batch and method.
        folder: of the run.
        seconds: that it took.
        notices: what it warned of.
        why: there are no rows; empty where there are.
    """

    rows: Sequence[FlatRow] = ()
    folder: Path | None = None
    seconds: float = 0.0
    notices: Sequence[str] = ()
    why: str = ""

    def picture(self, row: FlatRow) -> bytes:
        """The reconstruction (PNG) of a row."""
        assert self.folder is not None, "rows of images come from a run"
        return RunFolder(self.folder).reconstruction(row["task"], row["image"]).read_bytes()


NO_LIST = ".*there is no list of its tasks"
"""A notice that an audit does not repeat: its images are the user's own."""

NOT_REACHED = Done(why="not reached: the time was spent")


def jobs_of(plan: Plan, probe: Probe) -> list[Job]:
    """The runs of a plan, in its order; each attack is followed by its control."""
    jobs = []
    for attempt in plan.attempts:
        for defense, seconds in attempt.seconds_under.items():
            config = replace(probe.under(defense), tasks=plan.tasks)
            if attempt.attack == LABELS:
                jobs.append(Job(LABELS, replace(config, labels="none"), seconds, tuple(probe.readers[defense])))
                continue
            own = replace(configured(config, attempt.attack)[0], steps=attempt.under[defense].steps or None)
            jobs += [
                Job(attempt.attack, replace(own, control=control), seconds / 2)
                for control in get_args(Control)
                if control != "mean_image"  # of which every image has its own
            ]
    return jobs


def work(jobs: Sequence[Job], processes: int, until: float) -> list[tuple[Job, Done]]:
    """Do the jobs until the time is spent, with a line for each. Those that were not begun are `NOT_REACHED`."""
    began, total, spent = time.monotonic(), sum(job.seconds for job in jobs), 0.0
    done = [NOT_REACHED] * len(jobs)
    for number, (place, result) in enumerate(finished(jobs, processes, until), start=1):
        job, done[place] = jobs[place], result
        spent += job.seconds
        pace = (time.monotonic() - began) / spent if spent > total / 4 else 1 / processes  # at first as estimated
        left = pace * (total - spent)
        what = f"left out: {result.why}" if result.why else duration(result.seconds)
        print(f"audit    {number} of {len(jobs)}: {job}, {what}; about {duration(left)} left", flush=True)
    return [*zip(jobs, done, strict=True)]


def results_of(
    done: Sequence[tuple[Job, Done]],
) -> tuple[dict[tuple[str, str], list[Shown]], dict[tuple[str, str], float], list[tuple[str, str, str]]]:
    """Of every attack that was done with its control: its results by defense and image, and the seconds that it took.

    Of the others attack, defense and why there is no result.
    """
    shown: dict[tuple[str, str], list[Shown]] = {}
    took: dict[tuple[str, str], float] = {}
    not_done: list[tuple[str, str, str]] = []
    for attack, defense in dict.fromkeys((job.attack, job.config.defense) for job, _ in done):
        own = [result for job, result in done if (job.attack, job.config.defense) == (attack, defense)]
        if reason := next((result.why for result in own if result.why), ""):
            not_done.append((attack, defense, reason))
            continue
        took[attack, defense] = sum(result.seconds for result in own)
        for result in own if attack != LABELS else ():
            for row in result.rows:
                shown.setdefault((defense, row["image"]), []).append(Shown(attack, row, result.picture(row)))
    return shown, took, not_done


def do(job: Job) -> Done:
    """Run a job, or go on with it where it was stopped. A method that breaks stops no other one."""
    began, made = time.monotonic(), dict[str, Any]()
    with warnings.catch_warnings(record=True) as caught, silence():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", Notice)
        warnings.filterwarnings("ignore", NO_LIST, Notice)
        try:
            if job.attack == LABELS:
                found = recovered(job.config, job.config.make_data(), job.labels, [job.config.batch], job.config.tasks)
                made["rows"] = found[0]
            else:
                folder = run(job.config)
                made["folder"] = folder.path
                made["rows"] = job.config.own_rows(folder)
        except Exception as error:
            made["why"] = refusal(error)
    notices = [str(warning.message) for warning in caught if issubclass(warning.category, Notice)]
    return Done(seconds=time.monotonic() - began, notices=notices, **made)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Without the table and the bar of a run, whose place the page takes."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def finished(jobs: Sequence[Job], processes: int, until: float) -> Iterator[tuple[int, Done]]:
    """The places of the jobs as they are done, begun in their order.

    After the moment `until`, of `time.monotonic`, none is begun but the control of an attack that was, without which
    that shows nothing. Every process has a GPU of its own, where there are any.

    Raises:
        Unfinished: a process was ended from outside.
    """
    if processes == 1:
        for place, job in enumerate(jobs):
            if time.monotonic() > until and not job.is_control:
                return
            yield place, do(job)
        return
    spawning = multiprocessing.get_context("spawn")
    gpus = spawning.Queue()
    for place in range(processes):
        gpus.put(gpu(place))
    pool = ProcessPoolExecutor(processes, spawning, initializer=prepare, initargs=(os.getpid(), gpus))
    try:
        waiting, running, begun = deque(enumerate(jobs)), dict[Future[Done], int](), set[int]()
        while waiting or running:
            while waiting and len(running) < processes:  # a pool would begin what it was given too early
                place, job = waiting.popleft()
                if time.monotonic() < until or (job.is_control and place - 1 in begun):
                    begun.add(place)
                    running[pool.submit(do, job)] = place
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()
        pool.shutdown()
    except BrokenProcessPool:
        raise Unfinished(
            "a process of the audit was ended, perhaps for want of memory; the same command goes on."
        ) from None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.kill()  # Lightning has a handler of SIGTERM, which lets the whole task end first
        raise


def gpu(place: int) -> str:
    """What a process of this place sees of the GPUs; empty where there are none."""
    there = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    count = torch.cuda.device_count()
    return (there if len(there) == count else [*map(str, range(count))])[place % count] if count else ""


def prepare(parent: int, gpus: "Queue[str]") -> None:
    """A process of the pool: it ends with the audit, leaves Ctrl-C to it, and has one GPU."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()
    reproducible()
