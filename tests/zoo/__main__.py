"""`python -m tests.zoo FILE`: which models run right, which are refused and why, as a page; takes some minutes."""

import sys
import warnings
from functools import partial
from pathlib import Path

import timm
import torch

from tests.zoo.check import Outcome, outcome
from tests.zoo.families import FAMILIES
from tests.zoo.net import SHAPE
from tests.zoo.odd import ODD
from victims.by_name import of_timm

HEAD = """# Which models run

Each model below computed the update of two images, and an attack took a step on it. *Runs* means: the update, and the
gradient of the attack at the true images on every path that a run may take (in brackets), are the gradient of the
model's own training step in plain torch, to 1e-6 in float64 (where a model keeps other types, to their precision). All
others are refused before anything is computed, by the line that is shown.

Made by `make models` with torch {torch} and timm {timm}: {counts}."""


def main(file: Path) -> None:
    warnings.simplefilter("ignore")
    odd, families = {}, {}
    for name, model in ODD.items():
        found = outcome(model.make, shape=SHAPE, mode=model.mode, dtype=model.dtype, reference=model.reference)
        odd[name] = said(found, model.tolerance)
        print(name, odd[name], sep=": ", flush=True)
    for family, (name, size) in FAMILIES.items():
        shape = (3, size, size)
        found = outcome(partial(of_timm, name, image_shape=shape, num_classes=10), shape=shape, mode="eval")
        families[line_of(family)] = said(found)
        print(family, families[line_of(family)], sep=": ", flush=True)
    file.write_text(page(odd, families))


def page(odd: dict[str, str], families: dict[str, str]) -> str:
    counts = "; ".join(
        f"{sum(line.startswith('Runs') for line in lines.values())} of {len(lines)} {what} run, "
        f"{sum(line.startswith('Refused') for line in lines.values())} refused, "
        f"{sum(line.startswith('WRONG') for line in lines.values())} wrong"
        for what, lines in (("wrapped or odd models", odd), ("families of timm", families))
    )
    head = HEAD.format(torch=torch.__version__.partition("+")[0], timm=timm.__version__, counts=counts)
    tables = [
        table("Wrapped and odd models", "model", odd),
        table("Families of timm, in eval mode", "family | model | pixels", families),
    ]
    return "\n\n".join([head, *tables]) + "\n"


def line_of(family: str) -> str:
    name, size = FAMILIES[family]
    return f"{family} | `timm:{name}` | {size}"


def said(found: Outcome, tolerance: float = 1e-6) -> str:
    if found.refused:
        return f"Refused: {found.refused}"
    wrong = {name: f"{error:.0e}" for name, error in found.errors.items() if not error <= tolerance}
    return f"WRONG: {wrong}" if wrong else f"Runs ({', '.join(name for name in found.errors if name != 'update')})"


def table(title: str, columns: str, lines: dict[str, str]) -> str:
    rule = "|".join("---" for _ in f"{columns} | ".split("|"))
    rows = [f"| {name} | {line} |" for name, line in lines.items()]
    return "\n".join([f"## {title}", "", f"| {columns} | what becomes of it |", f"|{rule}|", *rows])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
