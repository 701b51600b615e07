"""`python -m tests.gpu_check.speed FINDINGS quick|whole`: a step of ours beside the loops of others.

`ig` with the best of four starts on one task, and on many tasks together, which others attack one after another: their
step is that of one task times the number of tasks. Then `gifd` on BigGAN with random weights.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from attacks.gifd import GIFD
from benchmark.run import reproducible
from priors.biggan import BigGAN
from priors.dcgan import DCGAN
from tests.gpu_check.report import Finding
from tests.speed.cells import COMPILED, SUITE, Cell, Times, device, time_stage
from victims.victim import build

VICTIMS, TASKS, SECONDS = ("resnet18", "convnet"), 16, 8.0
STEPS = 10  # of many tasks together
MORE = ("z", "f1", "f5", "f9")  # stages of gifd, of which a step costs more or less


def main(file: Path, quick: bool) -> None:
    reproducible()
    victims, tasks, seconds = (("lenet",), 2, 0.5) if quick else (VICTIMS, TASKS, SECONDS)
    for victim in victims:
        for finding in of_ig(Cell("ig", victim, 1, 4, 32), tasks, seconds, compiled=not quick):
            finding.write(file)
    generator = build(DCGAN, seed=0, size=32, ngf=4) if quick else build(BigGAN, seed=0, size=256)
    cell = Cell("gifd", "lenet", 1, 1, 32) if quick else Cell("gifd", "resnet18", 1, 1, 64)
    attack = GIFD(prior=generator.eval().requires_grad_(False), restarts=1, compile="off").to(device())
    for stage in [stage for stage in attack.plan if stage in MORE]:
        found = time_stage({SUITE: attack}, cell, stage, seconds)
        name = f"gifd on {'a small DCGAN' if quick else 'BigGAN-256'}, {cell.victim} {cell.size}px, stage {stage}"
        beside(name, found, cell.forms).write(file)


def of_ig(cell: Cell, tasks: int, seconds: float, *, compiled: bool) -> Iterator[Finding]:
    attacks = {SUITE: cell.attack()} | ({COMPILED: cell.attack("on")} if compiled else {})
    found = time_stage(attacks, cell, "x", seconds)
    yield beside(str(cell), found, cell.forms)
    together, times = attacks[SUITE], Times()
    together.begin([task.observation for task in cell.tasks(tasks)])
    together.advance()
    for _ in range(STEPS):
        times.take(together.advance)
    others = {form: {"wall": [tasks * t for t in found[form]["wall"]], "processor": []} for form in cell.forms}
    yield beside(
        f"{cell}, {tasks} tasks together", {SUITE: {"wall": times.wall, "processor": []}, **others}, cell.forms
    )


def beside(what: str, found: dict[str, Any], forms: list[str]) -> Finding:
    """Ours in milliseconds, and how many times as long the others take; on a GPU each should."""
    ours, *others = (median(found[who]["wall"]) for who in (SUITE, *forms))
    ratios = {form: other / ours for form, other in zip(forms, others, strict=True)}
    told = [f"{1e3 * ours:.3g} ms", *(f"{form} {ratio:.2f}x" for form, ratio in ratios.items())]
    if COMPILED in found:
        compiled = median(found[COMPILED]["wall"])
        told.insert(1, f"compiled {1e3 * compiled:.3g} ms after {found['ready']:.0f} s")
    if found.get("drift"):
        told.append(f"curves {found['drift']:.0e}")
    return Finding(what, ", ".join(told), min(ratios.values()) > 1 if device().type == "cuda" else None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "quick")
