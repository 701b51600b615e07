"""`python -m tests.gpu_check.speed FINDINGS quick|whole SECONDS`: a step of ours beside the loops of others.

`ig` with the best of four starts on one task, and on many tasks together, which others attack one after another: their
step is that of one task times the number of tasks. Then `gifd` on BigGAN with random weights. At last `ig` compiled, in
what is left of the seconds.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from attacks.gifd import GIFD
from benchmark.device import reproducible
from priors.biggan import BigGAN
from priors.dcgan import DCGAN
from tests.gpu_check.report import Finding
from tests.speed.cells import COMPILED, SUITE, Cell, Times, device, time_stage
from victims.modules import build

VICTIMS, TASKS, SECONDS = ("resnet18", "convnet"), 16, 8.0
STEPS = 10  # of many tasks together
AROUND = 20.0  # seconds, beside those of compiling a cell: to trace it, and to take its steps
MORE = ("z", "f1", "f5", "f9")  # stages of gifd, of which a step costs more or less


def main(file: Path, quick: bool, whole: float) -> None:
    """What compiles comes last: it may take longer than there is time."""
    began = time.perf_counter()
    reproducible()
    victims, tasks, seconds = (("lenet",), 2, 0.5) if quick else (VICTIMS, TASKS, SECONDS)
    cells = [Cell("ig", victim, 1, 4, 32) for victim in victims]
    for cell in cells:
        for finding in of_ig(cell, tasks, seconds):
            finding.write(file)
    for finding in of_gifd(quick, seconds):
        finding.write(file)
    for count, cell in enumerate(cells[: 0 if quick else None]):
        left = (whole - (time.perf_counter() - began)) / (len(cells) - count)
        compiled(cell, seconds, left - AROUND).write(file)


def compiled(cell: Cell, seconds: float, compile_s: float) -> Finding:
    if compile_s <= 0:
        return Finding(f"{cell}, compiled", "did not end: no time was left", ended=False)
    attacks = {SUITE: cell.attack(), COMPILED: cell.attack("on", compile_s=compile_s)}
    found = time_stage(attacks, cell, "x", seconds)
    if why := found["not_compiled"]:
        late = "is not compiled within" in why
        return Finding(f"{cell}, compiled", f"did not end: {why}" if late else why, None if late else False, not late)
    return beside(f"{cell}, compiled after {found['ready']:.0f} s", found, [SUITE, *cell.forms], COMPILED)


def of_ig(cell: Cell, tasks: int, seconds: float) -> Iterator[Finding]:
    attack, times = cell.attack(), Times()
    found = time_stage({SUITE: attack}, cell, "x", seconds)
    yield beside(str(cell), found, cell.forms)
    attack.begin([task.observation for task in cell.tasks(tasks)])
    attack.advance()
    for _ in range(STEPS):
        times.take(attack.advance)
    found = {form: {"wall": [tasks * t for t in found[form]["wall"]]} for form in cell.forms}
    yield beside(f"{cell}, {tasks} tasks together", {SUITE: {"wall": times.wall}, **found}, cell.forms)


def of_gifd(quick: bool, seconds: float) -> Iterator[Finding]:
    generator = build(DCGAN, seed=0, size=32, ngf=4) if quick else build(BigGAN, seed=0, size=256)
    cell = Cell("gifd", "lenet", 1, 1, 32) if quick else Cell("gifd", "resnet18", 1, 1, 64)
    attack = GIFD(prior=generator.eval().requires_grad_(False), restarts=1, compile="off").to(device())
    for stage in [stage for stage in attack.plan if stage in MORE]:
        name = f"gifd on {'a small DCGAN' if quick else 'BigGAN-256'}, {cell.victim} {cell.size}px, stage {stage}"
        yield beside(name, time_stage({SUITE: attack}, cell, stage, seconds), cell.forms)


def beside(what: str, found: dict[str, Any], others: Sequence[str], ours: str = SUITE) -> Finding:
    """Ours in milliseconds, and how many times as long the others take; on a GPU each should."""
    step = median(found[ours]["wall"])
    ratios = {form: median(found[form]["wall"]) / step for form in others}
    told = [f"{1e3 * step:.3g} ms", *(f"{form} {ratio:.2f}x" for form, ratio in ratios.items())]
    if "drift" in found:
        told.append(f"curves {found['drift']:.0e}")
    return Finding(what, ", ".join(told), min(ratios.values()) > 1 if device().type == "cuda" else None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "quick", float(sys.argv[3]))
