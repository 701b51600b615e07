"""One cell of the table: the suite's step and those of the loops of others, in alternation."""

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from attacks.base import Attack
from attacks.engine.session import least
from benchmark.config import Config
from benchmark.tasks.capture import Task, capture_task
from benchmark.tasks.module import GradientDataModule
from tests.plain.forms import FORMS, plain
from tests.plain.loops import Loop
from victims.choices import Compile
from victims.data.base import ImageData
from victims.errors import Notice
from victims.observation import Observation

MOST = 25  # repeats
FEW_DIGITS = 1e-3  # a cost, 1 - cos, that is less has few right digits in float32, and is compared as if it were this
SUITE, COMPILED, TEXTBOOK = "suite", "compiled", "textbook"  # whose steps: of the suite, and of one of `FORMS`


@dataclass(frozen=True)
class Cell:
    """One setting to measure, on embedded photographs with the embedded prior and no defense."""

    method: str
    victim: str
    batch: int
    restarts: int
    size: int

    def __str__(self) -> str:
        return f"{self.method} {self.victim} B={self.batch} R={self.restarts} {self.size}px"

    @cached_property
    def config(self) -> Config:
        options = {"defense": "none", "tasks": 1, "devices": 1, "wandb": "off"}
        named = asdict(self)
        return Config(attack=named.pop("method"), **named, **options)

    @cached_property
    def data(self) -> ImageData:
        return self.config.make_data()

    def tasks(self, count: int) -> list[Task]:
        """The first tasks of a run, on one victim."""
        victim, client = self.config.make_victim(self.data).to(device()), self.config.make_client()
        return [capture_task(victim, self.data, batch, client) for batch in self.config.make_batches(self.data, count)]

    @cached_property
    def task(self) -> Task:
        return self.tasks(1)[0]

    @property
    def observation(self) -> Observation:
        return self.task.observation

    @property
    def forms(self) -> list[str]:
        """Those that this method is written in."""
        return [form for form, methods in FORMS.items() if self.method in methods]

    def module(self, steps: int) -> GradientDataModule:
        """Serves the one task, as a run does."""
        return GradientDataModule(lambda _: [self.observation], groups=1, steps=steps)

    def attack(self, compile: Compile = "off", **options: Any) -> Attack:
        """The attack with its default options, or some others of a run."""
        return replace(self.config, compile=compile, **options).make_attack().to(device())


def shorten(attack: Attack, stage: str) -> int:
    """Let the attack reach a stage after one step of each earlier one: how many these are."""
    before = list(attack.plan)[: list(attack.plan).index(stage)]
    attack.plan |= dict.fromkeys(before, 1)
    return len(before)


def begin(attack: Attack, stage: str, observation: Observation) -> None:
    """Set the attack up and take it to the first step of a stage."""
    before = shorten(attack, stage)
    attack.begin([observation])
    for _ in range(before):
        attack.advance()


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


def step(loops: Sequence[Loop]) -> float:
    """One step of every restart of a loop: the least cost."""
    return min(next(loop) for loop in loops)


def time_stage(attacks: dict[str, Attack], cell: Cell, stage: str, seconds: float) -> dict[str, Any]:
    """A step of each in alternation, at most `MOST` times and for `seconds`, but at least once.

    Args:
        attacks: the suite's, eager and perhaps compiled, by name; the loops start where the eager one does.

    Returns:
        every repeat of each; floating-point operations of a step as the textbook has it; the largest relative
        difference of the suite's cost curve from the others', as far as they went; where the suite is compiled, the
        seconds from nothing to the end of its first step, and what it said if it could not be.
    """
    suite, ready = attacks[SUITE], Times()
    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always", Notice)
        for attack in attacks.values():
            ready.start()
            begin(attack, stage, cell.observation)
            attack.advance()
            ready.stop()
    loops = {form: plain(suite, form) for form in cell.forms}
    costs: dict[str, list[float]] = {form: [] for form in loops}
    steps: dict[str, Callable[[], None]] = {name: attack.advance for name, attack in attacks.items()}
    steps |= {form: lambda form=form: costs[form].append(step(loops[form])) for form in loops}
    counter = FlopCounterMode(display=False)
    for form in loops:
        for _ in range(shorten(suite, stage)):
            steps[form]()
        with counter if form == TEXTBOOK else nullcontext():
            steps[form]()
    times = {name: Times() for name in steps}
    started = time.perf_counter()
    for repeat in range(min(MOST, suite.plan[stage] - 1)):
        for name in list(steps)[:: -1 if repeat % 2 else 1]:
            times[name].take(steps[name])
        if time.perf_counter() - started > seconds:
            break
    curve = torch.stack([least(costs) for _, costs in suite.session.costs])[:, 0].double().cpu()
    others = {form: torch.tensor(costs, dtype=torch.float64) for form, costs in costs.items()}
    return {
        **{name: asdict(taken) for name, taken in times.items()},
        "flops": counter.get_total_flops(),
        "drift": max(float(((curve - other).abs() / other.clamp_min(FEW_DIGITS)).max()) for other in others.values()),
        "ready": ready.wall[-1] if COMPILED in attacks else None,
        "not_compiled": next((str(n.message) for n in notices if "without compiling" in str(n.message)), None),
    }


def matmul_peak(repeats: int = 15) -> tuple[float, list[float]]:
    """Operations per second of torch's fp32 matrix product, by the fastest repeat, and the seconds of each."""
    n = 8192 if torch.cuda.is_available() else 1024
    a = torch.randn(n, n, device=device())
    times = Times()
    for _ in range(repeats + 1):
        times.take(lambda: a @ a)
    seconds = times.leading[1:]
    return 2 * n**3 / min(seconds), seconds
