"""An attack with the small tasks that it is made for, for the contracts of attacks."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from attacks.base import Attack, Common
from attacks.engine.author import built
from benchmark.check.small import BATCH, small_prior, small_task
from benchmark.registry import find
from benchmark.tasks.capture import Task

STEPS = 6
SMALL = {"population": 4, "width": 16}  # the least that GINAS takes


@dataclass(frozen=True)
class Case:
    """An attack, and small tasks that it is made for."""

    method: type[Attack]

    @cached_property
    def steps(self) -> int:
        """Few, but at least one of every stage."""
        return max(STEPS, len(self.make(steps=None).plan))

    def make(self, dtype: torch.dtype = torch.float32, **options: Any) -> Attack:
        """With one restart, few steps and a small prior, unless these are given."""
        method = self.method
        if "prior" in method.needs:
            options = {"prior": small_prior(method.takes).to(dtype), **options}
        if not method.analytic and "steps" not in options:
            options["steps"] = self.steps
        has = inspect.signature(method.__init__).parameters
        options = {name: small for name, small in SMALL.items() if name in has} | options
        return built(method, {"restarts": 1, **options}, list(Common.__annotations__))

    def capture(self, indices: tuple[int, ...] = BATCH, **options: Any) -> Task:
        setting = self.method.made_for
        if "victim" in setting:
            options["model"] = find("victim", setting["victim"])
        if setting.get("defense") == "none":
            options = {"rate": None, **options}
        return small_task(indices[: setting.get("batch")], training=setting.get("victim_mode") == "train", **options)

    @property
    def where(self) -> tuple[Any, ...]:
        return self.method.search, self.method


Contract = Callable[[Case], None]
