"""One cell of the table: the suite's step and the plain loop's, in alternation."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from attacks.base import Attack
from attacks.engine.session import least
from benchmark.config import Config
from benchmark.tasks.capture import Task, capture_task
from benchmark.tasks.module import GradientDataModule
from tests.plain.forms import plain
from tests.plain.loops import Loop
from victims.data.base import ImageData
from victims.observation import Observation

MOST = 25  # repeats
WARM = 2  # steps of a stage that are not timed; one, where a step alone takes the time that the stage has


@dataclass(frozen=True)
class Cell:
    """One setting to measure, on embedded photographs with the embedded prior and no defense."""

    method: str
    victim: str
    batch: int
    restarts: int
    size: int
    compile: str = "off"

    def __str__(self) -> str:
        compiled = ", compiled" if self.compile == "on" else ""
        return f"{self.method} {self.victim} B={self.batch} R={self.restarts} {self.size}px{compiled}"

    @cached_property
    def config(self) -> Config:
        options = {"defense": "none", "tasks": 1, "devices": 1, "wandb": "off"}
        named = asdict(self)
        return Config(attack=named.pop("method"), **named, **options)

    def module(self, steps: int) -> GradientDataModule:
        """Serves the one task, as a run does."""
        return GradientDataModule(lambda _: [self.observation], groups=1, steps=steps)

    @cached_property
    def data(self) -> ImageData:
        return self.config.make_data()

    @cached_property
    def task(self) -> Task:
        victim = self.config.make_victim(self.data).to(device())
        (batch,) = self.config.make_batches(self.data, 1)
        return capture_task(victim, self.data, batch, self.config.make_client())

    @property
    def observation(self) -> Observation:
        return self.task.observation

    def attack(self, stage: str | None = None) -> Attack:
        """The attack with its default options; a named stage is reached after one step of each earlier stage."""
        attack = self.config.make_attack().to(device())
        if stage:
            before = list(attack.plan)[: list(attack.plan).index(stage)]
            attack.plan |= dict.fromkeys(before, 1)
        return attack


@dataclass
class Times:
    """Seconds of every repeat; processor time is not measured on a GPU."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def start(self) -> None:
        synchronize()
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        synchronize()
        wall, processor = self._began
        self.wall.append(time.perf_counter() - wall)
        if not torch.cuda.is_available():
            self.processor.append(time.process_time() - processor)

    def take(self, work: Callable[[], Any]) -> None:
        self.start()
        work()
        self.stop()

    @property
    def leading(self) -> list[float]:
        """The times used for ratios: other work on the machine disturbs processor time less."""
        return self.processor or self.wall


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def step(loops: list[Loop]) -> float:
    """One step of every restart of a plain loop: the least cost."""
    return min(next(loop) for loop in loops)


def time_stage(cell: Cell, stage: str, seconds: float) -> dict[str, Any]:
    """Steps of both in alternation, at most `MOST` times and for `seconds`, but at least once.

    Returns:
        every repeat of both; seconds from nothing to the end of the first step; floating-point operations of a plain
        step; the largest relative difference of the two cost curves as far as they went.
    """
    suite, twin = cell.attack(stage), cell.attack(stage)
    observation = cell.observation
    first, times, costs = Times(), {"suite": Times(), "plain": Times()}, []
    first.take(lambda: (suite.begin([observation]), suite.advance()))
    twin.begin([observation])
    loops = plain(twin)
    before = list(suite.plan).index(stage)
    for _ in range(before):
        costs.append(step(loops))
        suite.advance()
    started = time.perf_counter()
    with FlopCounterMode(display=False) as counter:
        costs.append(step(loops))
    most = min(MOST, suite.plan[stage] - WARM)
    for _ in range(WARM - 1):
        if time.perf_counter() - started < seconds / 4:
            suite.advance()
            costs.append(step(loops))
    started = time.perf_counter()
    while not times["plain"].wall or (len(times["plain"].wall) < most and time.perf_counter() - started < seconds):
        times["suite"].take(suite.advance)
        times["plain"].take(lambda: costs.append(step(loops)))
    curve = torch.stack([least(costs) for _, costs in suite.session.costs])[:, 0].double().cpu()
    other = torch.tensor(costs, dtype=torch.float64)
    return {
        **{name: asdict(taken) for name, taken in times.items()},
        "first_step": first.wall[0],
        "flops": counter.get_total_flops(),
        "drift": float(((curve - other) / other).abs().max()),
    }


def matmul_peak(repeats: int = 7) -> tuple[float, list[float]]:
    """Operations per second of torch's fp32 matrix product, by the median repeat, and the seconds of each."""
    n = 8192 if torch.cuda.is_available() else 1024
    a = torch.randn(n, n, device=device())
    times = Times()
    for _ in range(repeats + 1):
        times.take(lambda: a @ a)
    seconds = times.leading[1:]
    return 2 * n**3 / sorted(seconds)[len(seconds) // 2], seconds


def plan_of(cell: Cell) -> dict[str, int]:
    """The attack's default steps by stage."""
    return dict(cell.attack().plan)
