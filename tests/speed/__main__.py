"""`python -m tests.speed`: the cost of a step beside the loops of others, in one process and in alternation."""

import json
import math
import platform
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmark.code_version import code_version
from benchmark.device import reproducible
from benchmark.registry import open_victim
from leaderboard.files import write_atomically
from tests.command import Parser
from tests.plain.forms import FORMS
from tests.speed import memory
from tests.speed.cells import COMPILED, SUITE, TEXTBOOK, Cell, matmul_peak, time_stage
from tests.speed.report import Record, cells_table, draw, line, page, starts_table, summary
from tests.speed.start import start
from tests.speed.trainer import overhead
from victims import by_name
from victims.errors import InputError

FULL = {"method": "ig,gias", "victim": "lenet,convnet,resnet18,vgg16", "batch": "1,4,16", "restarts": "1,4"}
FULL |= {"size": "32,64", "compile": "off", "budget": 6.0}
QUICK = FULL | {"victim": "lenet,convnet", "batch": "1", "size": "32", "budget": 4.0}
HELP = {
    "method": f"attacks that have a plain loop: {', '.join(FORMS[TEXTBOOK])}",
    "victim": "models",
    "batch": "images in a batch: the first for all cells, the others one at a time",
    "restarts": "independent starts, likewise",
    "size": "sides of the images, likewise, but of ig alone, which needs no prior of that size",
    "compile": "whether the suite's steps are measured compiled too: off or on; on takes minutes a cell",
    "budget": "seconds for the repeats of a cell",
}
LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "timm", "numpy")
STAR = ("batch", "restarts", "size")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, 2 for an error of the user, 130 if interrupted; the same command continues."""
    parser = Parser(prog="speed", description=__doc__)
    parser.add_quick("a few cells, in a minute or two")
    for name, default in FULL.items():
        parser.add_argument(f"--{name}", type=type(default), help=f"{HELP[name]}; by default {default}")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="folder of speed.json, .md and .png")
    given = vars(parser.parse_args(arguments))
    defaults = QUICK if given["quick"] else FULL
    chosen = {name: default if given[name] is None else given[name] for name, default in defaults.items()}
    warnings.simplefilter("ignore")
    try:
        measure(cells(chosen), chosen["compile"] == "on", chosen["budget"], given["out"])
    except InputError as error:
        print(f"speed: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"speed: stopped; the same command continues from {given['out']}.", file=sys.stderr)
        return 130
    return 0


def cells(chosen: dict[str, Any]) -> list[Cell]:
    """For every method and victim the first batch, restarts and size, and each of the others alone; cheap ones first.

    Raises:
        InputError: an unknown method or victim, or no number where one belongs.
    """
    methods, victims = (chosen[name].split(",") for name in ("method", "victim"))
    if unknown := [name for name in methods if name not in FORMS[TEXTBOOK]]:
        raise InputError(f"there is no plain loop for '{unknown[0]}'; method is one of {', '.join(FORMS[TEXTBOOK])}.")
    for victim in victims:
        by_name.find(victim, open_victim)
    if not 0 < chosen["budget"] < math.inf:
        raise InputError(f"budget is {chosen['budget']:g}; give seconds above 0.")
    if chosen["compile"] not in ("off", "on"):
        raise InputError(f"compile is off or on, not '{chosen['compile']}'.")
    values = {name: numbers(name, chosen[name]) for name in STAR}
    first = {name: each[0] for name, each in values.items()}
    star = [first, *({**first, name: value} for name in STAR for value in values[name][1:])]
    return [
        Cell(method, victim, **point)
        for victim in victims
        for method in methods
        for point in star
        if method == "ig" or point["size"] == first["size"]
    ]


def machine() -> dict[str, Any]:
    """The machine and software; measurements are comparable only if these are equal."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        file = Path("/proc/cpuinfo")
        lines = file.read_text().splitlines() if file.exists() else []
        named = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
        name = named[0] if named else platform.processor() or platform.machine()
    versions = {"python": platform.python_version()} | {library: version(library) for library in LIBRARIES}
    return {"device": name, "threads": torch.get_num_threads(), "versions": versions, "commit": code_version()}


def measured(cell: Cell, compiled: bool, budget: float) -> Record:
    """All measurements of one cell."""
    cell, began = replace(cell), time.perf_counter()  # a copy, whose captured update is freed afterwards
    attacks = {SUITE: cell.attack(), **({COMPILED: cell.attack("on")} if compiled else {})}
    plan = dict(attacks[SUITE].plan)
    stages = {}
    for stage in plan:
        found = time_stage(attacks, cell, stage, budget / len(plan))
        stages[stage] = {**found, "memory": memory.of_stage(attacks[SUITE], cell, stage)}
    record = {
        "cell": asdict(cell),
        "named": str(cell),
        "compile": compiled,
        "budget": budget,
        "parameters": sum(p.numel() for p in cell.observation.victim.parameters.values()),
        "plan": plan,
        "stages": stages,
        "seconds": time.perf_counter() - began,
    }
    return record | {"summary": summary(record)}


def numbers(name: str, text: str) -> list[int]:
    if not all(part.isdecimal() and int(part) for part in text.split(",")):
        raise InputError(f"{name} is '{text}'; give whole numbers from 1 with commas between them, such as 1,4.")
    return [int(part) for part in text.split(",")]


def kept(file: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What earlier calls have measured.

    Raises:
        InputError: of other code or on another machine, or the file is damaged.
    """
    if not file.is_file():
        return {"about": about, "starts": [], "cells": []}
    try:
        found = json.loads(file.read_text())
        was = {key: found["about"][key] for key in about}
        found["starts"], found["cells"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file} is damaged; remove it, or choose another --out.") from None
    if different := [key for key in about if was[key] != about[key]]:
        old, new = was[different[0]], about[different[0]]
        raise InputError(f"{file} was measured with another {different[0]} ({old}, now {new}); choose another --out.")
    return found


def measure(wanted: Sequence[Cell], compiled: bool, budget: float, out: Path) -> None:
    """Measure the cells that are not in `out` yet, then show all wanted cells.

    Raises:
        InputError: `out` cannot be written, or has measurements of other code or of another machine.
    """
    reproducible()
    file = out / "speed.json"
    found = kept(file, machine())
    about = found["about"]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out} ({error.strerror}); choose another --out.") from None
    if "peak" not in about:
        flops, seconds = matmul_peak()
        about["peak"] = {"flops_per_second": flops, "seconds": seconds}
        about["lightning"] = overhead(Cell("ig", "lenet", 1, 1, 32))
    beginnings = list(dict.fromkeys(Cell("ig", cell.victim, 1, 1, cell.size) for cell in wanted))

    def known(kind: str, cell: Cell) -> Record | None:
        how = {"cell": asdict(cell)} | ({"compile": compiled, "budget": budget} if kind == "cells" else {})
        return next((record for record in found[kind] if how.items() <= record.items()), None)

    def keep(kind: str, record: Record) -> None:
        found[kind].append(record)
        write_atomically(file, json.dumps(found, indent=1))

    for cell in beginnings:
        if not known("starts", cell):
            keep("starts", {"cell": asdict(cell), **start(cell)})
            print(f"the start of {cell}", flush=True)
    for cell in wanted:
        if not known("cells", cell):
            keep("cells", measured(cell, compiled, budget))
            print(line(found["cells"][-1]), flush=True)
    shown = [known("cells", cell) for cell in wanted]
    tables = [cells_table(about, shown), starts_table([known("starts", cell) for cell in beginnings])]
    print("\n" + "\n".join(table.text() for table in tables))
    write_atomically(out / "speed.md", page(about, tables))
    print(f"json     {file}\npicture  {draw(out / 'speed.png', shown)}\npage     {out / 'speed.md'}")
    print(f"For a release: cp {out / 'speed.md'} docs/speed.md")


if __name__ == "__main__":
    sys.exit(main())
