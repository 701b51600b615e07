"""A pytest plugin, and what other scripts call: packages that are not installed get stand-ins, and tests say so.

The suite imports some packages for a few attacks, metrics and commands alone. On a machine without one of them the rest
can be checked: what needs it ends with `NotInstalled`, and a test is skipped with that line. With `GPU_CHECK_LOG` the
plugin also writes the outcome of every test there as soon as it is known, one JSON a line.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.gpu_check.packages import WITHOUT, missing, module

HARMLESS = ("threadpoolctl",)  # without it numpy may take more threads


class NotInstalled(ModuleNotFoundError):
    """Says which package is needed."""


class StandIn(ModuleType):
    """A module of any content; what is called of it raises `NotInstalled`."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        package = self.__name__.partition(".")[0]

        def called(*_: Any, **__: Any) -> None:
            if package not in HARMLESS:
                raise NotInstalled(f"needs {package}, which is not installed", name=package)

        return type(name, (), {"__new__": called})


class Finder(MetaPathFinder, Loader):
    """Finds the modules of packages that are not installed."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.partition(".")[0] in self.packages else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def stand_in(modules: Sequence[str] = [module(package) for package in WITHOUT]) -> list[str]:
    """Let those that are not installed be imported; their names."""
    absent = [name for name in modules if missing(name)]
    if absent:
        sys.meta_path.append(Finder(absent))
    return absent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    try:
        return (yield)
    except NotInstalled as error:
        pytest.skip(str(error))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    log = os.environ.get("GPU_CHECK_LOG")
    if not log or "PYTEST_XDIST_WORKER" in os.environ or (report.when != "call" and report.passed):
        return
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext.strip().splitlines()[-1:]
    told = {"test": report.nodeid, "outcome": report.outcome, "why": "".join(why), "seconds": report.duration}
    with Path(log).open("a") as file:
        file.write(json.dumps(told) + "\n")


if "GPU_CHECK_LOG" in os.environ:
    stand_in()
