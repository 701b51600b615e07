"""`python -m tests.speed`: the cost of a step, compared with the plain loop, in one process and in alternation."""

import argparse
import json
import platform
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmark.run import code_version, reproducible
from leaderboard.run_folder import write_atomically
from tests.plain.loops import LOOPS
from tests.speed import memory
from tests.speed.cells import Cell, matmul_peak, plan_of, time_stage
from tests.speed.report import Record, draw, line, summary, table
from tests.speed.trainer import overhead
from victims.errors import InputError

FULL = {"method": "ig,gias,gifd,ggl", "victim": "lenet,convnet,resnet18", "batch": "1,4,16", "restarts": "1,4"}
FULL |= {"size": "32,64", "compile": "off", "budget": 30.0}
QUICK = {"method": "ig,gias", "victim": "lenet,convnet", "batch": "1", "restarts": "1,4", "size": "32", "budget": 4.0}
QUICK |= {"compile": "off"}
HELP = {
    "method": "attacks that have a plain loop",
    "victim": "models",
    "batch": "images in a batch",
    "restarts": "independent starts",
    "size": "sides of the images: the first for all cells, others for ig at the first batch and restarts",
    "compile": "whether the suite's steps are compiled: off, on, or both with a comma; on takes minutes a cell",
    "budget": "seconds for the repeats of a cell",
}
LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "timm", "numpy", "cma")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, 2 for an error of the user, 130 if interrupted; the same command continues."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cells, in minutes")
    for name, default in FULL.items():
        parser.add_argument(f"--{name}", type=type(default), help=f"{HELP[name]}; by default {default}")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="folder of speed.json and speed.png")
    given = vars(parser.parse_args(arguments))
    defaults = QUICK if given["quick"] else FULL
    chosen = {name: default if given[name] is None else given[name] for name, default in defaults.items()}
    warnings.simplefilter("ignore")
    try:
        measure(cells(chosen), chosen["budget"], given["out"])
    except InputError as error:
        print(f"speed: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"speed: stopped; the same command continues from {given['out']}.", file=sys.stderr)
        return 130
    return 0


def cells(chosen: dict[str, Any]) -> list[Cell]:
    """All combinations at the first size, cheap victims and batches first; ig, which needs no prior, at the others.

    Raises:
        InputError: an unknown method, or no number where one belongs.
    """
    methods, victims = (chosen[name].split(",") for name in ("method", "victim"))
    if unknown := [name for name in methods if name not in LOOPS]:
        raise InputError(f"there is no plain loop for '{unknown[0]}'; method is one of {', '.join(LOOPS)}.")
    batches, restarts, sizes = (numbers(name, chosen[name]) for name in ("batch", "restarts", "size"))
    modes = chosen["compile"].split(",")
    if unknown := set(modes) - {"off", "on"}:
        raise InputError(f"compile is off, on, or off,on, not '{', '.join(sorted(unknown))}'.")
    small = [(v, b, r, sizes[0], mode) for v in victims for b in batches for r in restarts for mode in modes]
    grid = [Cell(m, *rest) for rest in small for m in methods]
    first = batches[0], restarts[0]
    larger = [Cell("ig", v, *first, size, modes[0]) for v in victims for size in sizes[1:] if "ig" in methods]
    return grid + larger


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


def measured(cell: Cell, budget: float, peak: float) -> Record:
    """All measurements of one cell."""
    cell = replace(cell)  # a copy, whose captured update is freed afterwards
    plan = plan_of(cell)
    stages = {stage: time_stage(cell, stage, budget / len(plan)) for stage in plan}
    first = next(iter(stages.values()))["suite"]
    record = {
        "cell": asdict(cell),
        "parameters": sum(p.numel() for p in cell.observation.victim.parameters.values()),
        "plan": plan,
        "stages": stages,
        "lightning": overhead(cell, median(first["processor"] or first["wall"]), budget),
        "memory": {who: memory.peaks(who, cell) for who in ("suite", "plain")},
    }
    return record | {"summary": summary(record, peak)}


def numbers(name: str, text: str) -> list[int]:
    if not all(part.isdecimal() and int(part) for part in text.split(",")):
        raise InputError(f"{name} is '{text}'; give whole numbers from 1 with commas between them, such as 1,4.")
    return [int(part) for part in text.split(",")]


def measure(wanted: Sequence[Cell], budget: float, out: Path) -> None:
    """Measure the cells that are not in `out` yet, then show all wanted cells.

    Raises:
        InputError: `out` cannot be written, or has measurements of other code or of another machine.
    """
    reproducible()
    file = out / "speed.json"
    about, records = machine(), []
    if file.is_file():
        kept = json.loads(file.read_text())
        if different := [key for key in about if key != "peak" and kept["about"][key] != about[key]]:
            old, new = kept["about"][different[0]], about[different[0]]
            raise InputError(
                f"{file} was measured with another {different[0]} ({old}, now {new}); choose another --out."
            )
        about, records = kept["about"], kept["cells"]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out} ({error.strerror}); choose another --out.") from None
    if "peak" not in about:
        flops, seconds = matmul_peak()
        about["peak"] = {"flops_per_second": flops, "seconds": seconds}
    for cell in wanted:
        if not any(record["cell"] == asdict(cell) for record in records):
            records.append(measured(cell, budget, about["peak"]["flops_per_second"]))
            write_atomically(file, json.dumps({"about": about, "cells": records}, indent=1))
            print(line(records[-1]), flush=True)
    shown = [record for cell in wanted for record in records if record["cell"] == asdict(cell)]
    print("\n" + table(about, shown).text())
    write_atomically(out / "speed.md", table(about, shown).markdown())
    print(f"json {file}\npicture {draw(out / 'speed.png', shown)}")


if __name__ == "__main__":
    sys.exit(main())
