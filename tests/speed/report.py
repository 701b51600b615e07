"""The report of measured cells: one line each, tables, a picture."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from leaderboard.table import NOTHING, Table
from tests.plain.forms import FORMS
from tests.speed.cells import COMPILED, FEW_DIGITS, SUITE, TEXTBOOK

Record = dict[str, Any]
"""What `speed.json` keeps of a cell."""

MIB = 2**20
SOURCES = {
    TEXTBOOK: "`tests/plain/loops.py`, as a textbook writes it",
    "breaching": "`tests/plain/breaching.py`, in the form of the framework breaching",
    "authors": "`tests/plain/authors.py`, in the form of the code of the authors of Inverting Gradients and GIAS",
}


def of_step(record: Record, who: str) -> float | None:
    """Seconds of a step: medians of the stages, weighted by their steps; None if it was not measured."""
    plan, stages = record["plan"], record["stages"]
    times = {stage: stages[stage].get(who) for stage in plan}
    if not all(times.values()):
        return None
    leading = {stage: median(taken["processor"] or taken["wall"]) for stage, taken in times.items()}
    return sum(steps * leading[stage] for stage, steps in plan.items()) / sum(plan.values())


def summary(record: Record) -> dict[str, Any]:
    """The numbers of the tables."""
    plan, stages = record["plan"], record["stages"]
    eager = any(stage.get("not_compiled") for stage in stages.values())  # too late, or not possible
    step, compiled = of_step(record, SUITE), None if eager else of_step(record, COMPILED)
    others = {form: of_step(record, form) for form in FORMS}
    flops = sum(steps * stages[stage]["flops"] for stage, steps in plan.items()) / sum(plan.values())
    ready = [stage["ready"] for stage in stages.values() if stage["ready"]]
    return {
        "step": step,
        "compiled": compiled,
        "ready": sum(ready) if ready else None,
        "others": others,
        "ratios": {form: other and other / step for form, other in others.items()},
        "memory": {who: max(stage["memory"][who] for stage in stages.values()) for who in (SUITE, TEXTBOOK)},
        "flops_per_second": flops / step,
        "drift": max(stage["drift"] for stage in stages.values()),
    }


def columns(record: Record) -> dict[str, str]:
    """A cell's line of the table."""
    cell, s = record["cell"], record["summary"]
    compiled = {}
    if s["compiled"]:
        compiled = {"compiled ms": f"{1e3 * s['compiled']:.3g}", "ready s": f"{s['ready']:.2g}"}
    return {
        "attack": cell["method"],
        "victim": cell["victim"],
        "B": str(cell["batch"]),
        "R": str(cell["restarts"]),
        "px": str(cell["size"]),
        "ms": f"{1e3 * s['step']:.3g}",
        **compiled,
        **{form: f"{ratio:.2f}" if ratio else NOTHING for form, ratio in s["ratios"].items()},
        "MiB": " / ".join(f"{s['memory'][who] / MIB:.3g}" for who in (SUITE, TEXTBOOK)),
        "GFLOP/s": f"{s['flops_per_second'] / 1e9:.3g}",
        "curves": f"{s['drift']:.0e}",
    }


def line(record: Record) -> str:
    """A cell for the terminal, while the others are measured."""
    told = [f"{name} {text}" for name, text in columns(record).items()][5:]
    return f"{record['named']}: {', '.join(told)}; {record['seconds']:.0f} s"


READY = "compiled ms: the same of a compiled step; ready s: from nothing to the end of the first of these. "


def cells_table(about: Record, records: Sequence[Record]) -> Table:
    """All cells, and below them the meaning of every column."""
    lines = [columns(record) for record in records]
    headings = list(dict.fromkeys(heading for cells in lines for heading in cells))
    compiled = "compiled ms" in headings
    gflops = about["peak"]["flops_per_second"] / 1e9
    above = "A step, and how many times as long it takes in the form of others"
    below = (
        "ms: of a step of all restarts, the median of repeats in alternation with the others, of processor time on a "
        f"CPU{'' if compiled else ', not compiled'}. "
        + " ".join(f"{form}: {source}, by ours." for form, source in SOURCES.items())
        + " These have our starting points and compute our costs; curves: their largest relative difference from ours "
        f"in single precision, where a cost below {FEW_DIGITS:g} counts as that. Up to 0.1 it is rounding: Adam on the "
        "signs of gradients makes whole steps of it where a gradient is near zero. "
        f"{READY if compiled else ''}MiB: the most memory of tensors in a step, ours / textbook, "
        "which does one restart after another. GFLOP/s: the textbook's operations in our time; an fp32 matrix product "
        f"of torch reaches {gflops:.3g}, and ours can have more by operations that it spares, or where the library of "
        "the convolutions is faster than that of the products. Lightning's Trainer adds "
        f"{1e3 * about['lightning']:.2g} ms to a step of ours. "
        "Small victims at one start stay near 1: there a step costs by the number of its operations, whatever they "
        "compute."
    )
    return Table(above, {h: [cells.get(h, NOTHING) for cells in lines] for h in headings}, below)


def starts_table(starts: Sequence[Record]) -> Table:
    """What a run of ig costs before its second step."""
    lines = []
    for start in starts:
        cell, memory = start["cell"], start["memory"]
        lines.append(
            {
                "victim": cell["victim"],
                "px": str(cell["size"]),
                **{f"{name} s": f"{start[key]:.2g}" for name, key in STARTS.items()},
                "MiB of begin": f"{memory / MIB:.3g}" if memory is not None else NOTHING,
            }
        )
    above = "Before the second step of ig, one image, in a fresh process"
    below = (
        "Seconds of processor time. import: of Python, torch and gibench; task: victim, images and update; begin: the "
        "victim is tried and its gradient paths are found, and what the process grew in it at most."
    )
    return Table(above, {heading: [cells[heading] for cells in lines] for heading in lines[0]}, below)


STARTS = {"import": "import", "task": "task", "begin": "begin", "first step": "first_step"}


def page(about: Record, tables: Sequence[Table]) -> str:
    """The page of a release, in Markdown."""
    versions = ", ".join(f"{library} {version}" for library, version in about["versions"].items())
    head = (
        "# Speed\n\nWhat a step of a search costs beside the same search in the form of others, in one process. Ratios "
        "carry over to other machines better than milliseconds do. `make speed` measures this on your machine and "
        "writes `results/speed/speed.md`; this page was measured with the version below.\n\n"
        f"{about['device']}, {about['threads']} thread; {versions}; gibench {about['commit']}.\n"
    )
    parts = [f"## {table.above}\n\n{Table('', table.columns, table.below).markdown()}" for table in tables]
    return "\n".join([head, *parts])


AXES = {"batch": "images in a batch B", "restarts": "restarts R", "size": "side of the images (px)"}


def draw(path: Path, records: Sequence[Record]) -> Path:
    """Seconds of a step along four axes, the others at their first measured value; suite solid, textbook dashed."""
    cells = [{**record["cell"], "parameters": record["parameters"], **record["summary"]} for record in records]
    base = {axis: cells[0][axis] for axis in ("victim", *AXES)}
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    figure = Figure(figsize=(11, 3), layout="constrained")
    for axis, (name, label) in zip(
        figure.subplots(1, 4, sharey=True), {**AXES, "parameters": "parameters of the victim"}.items(), strict=True
    ):
        varied = "victim" if name == "parameters" else name
        fixed = {key: value for key, value in base.items() if key != varied}
        for color, method in enumerate(methods):
            points = [c for c in cells if c["method"] == method and all(c[key] == fixed[key] for key in fixed)]
            points.sort(key=lambda cell: cell[name])
            x = [c[name] for c in points]
            axis.plot(x, [c["step"] for c in points], "o-", color=f"C{color}", ms=4, lw=1)
            axis.plot(x, [c["others"][TEXTBOOK] for c in points], "x--", color=f"C{color}", ms=4, lw=1)
        axis.set(xscale="log", yscale="log")
        measured = sorted({c[name] for c in cells})
        axis.set_xticks(measured, map(EngFormatter(places=0, sep=""), measured))
        axis.set_xticks([], minor=True)
        axis.set_xlabel(label, fontsize=8)
        named = [str(value) for key, value in fixed.items() if key == "victim"]
        named += [f"{short}={fixed[key]}" for key, short in {"batch": "B", "restarts": "R"}.items() if key in fixed]
        axis.set_title(", ".join(named), fontsize=8)
        axis.tick_params(labelsize=7, which="both")
        axis.grid(alpha=0.3)
    first = figure.axes[0]
    first.set_ylabel("seconds per step", fontsize=8)
    handles = [first.plot([], [], color=f"C{k}", label=method)[0] for k, method in enumerate(methods)]
    handles += [
        first.plot([], [], style, color="0.4", label=label)[0] for style, label in (("-", SUITE), ("--", TEXTBOOK))
    ]
    first.legend(handles=handles, fontsize=6)
    figure.savefig(path, dpi=160)
    return path
