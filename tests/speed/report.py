"""The report of measured cells: one line each, a table, a picture."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from leaderboard.table import NOTHING, Table

Record = dict[str, Any]
"""What `speed.json` keeps of a cell."""

MIB = 2**20


def of_step(record: Record, who: str, clock: str) -> float | None:
    """Seconds of a step: medians of the stages, weighted by their steps; None if the clock was not measured."""
    plan, stages = record["plan"], record["stages"]
    if not all(stages[stage][who][clock] for stage in plan):
        return None
    return sum(steps * median(stages[stage][who][clock]) for stage, steps in plan.items()) / sum(plan.values())


def summary(record: Record, peak: float) -> dict[str, float | None]:
    """The numbers of the table.

    Args:
        peak: operations per second of a matrix product.
    """
    clocks = ("processor", "wall")
    times = {(who, clock): of_step(record, who, clock) for who in ("suite", "plain") for clock in clocks}
    leading = "processor" if times["suite", "processor"] else "wall"
    ratios = {clock: times["plain", clock] / times["suite", clock] for clock in clocks if times["suite", clock]}
    plan, stages = record["plan"], record["stages"]
    total = sum(plan.values())
    flops = sum(steps * stages[stage]["flops"] for stage, steps in plan.items()) / total
    memory = {
        f"{who}_{kind}": max((m[kind] for m in record["memory"][who].values() if m[kind] is not None), default=None)
        for who in ("suite", "plain")
        for kind in ("tensors", "resident")
    }
    wall, under = times["suite", "wall"], record["lightning"]
    blocks = list(zip(under["under"][leading], under["bare"][leading], strict=True)) if under else []
    return {
        "step": times["suite", leading],
        "plain_step": times["plain", leading],
        "ratio": ratios[leading],
        "ratio_wall": ratios["wall"],
        "steps_per_second": 1 / wall,
        "images_per_hour": 3600 * record["cell"]["batch"] / (wall * total),
        **memory,
        "peak_share": flops / times["suite", leading] / peak,
        "plain_peak_share": flops / times["plain", leading] / peak,
        "lightning": median(a / b for a, b in blocks) - 1 if blocks else None,
        "first_step": stages[next(iter(plan))]["first_step"],
        "drift": max(stage["drift"] for stage in stages.values()),
    }


def columns(record: Record) -> dict[str, str]:
    """A cell's line of the table."""
    cell, s = record["cell"], record["summary"]

    def both(kind: str, unit: float) -> str:
        pair = [s[f"{who}_{kind}"] for who in ("suite", "plain")]
        return NOTHING if None in pair else " / ".join(f"{value / unit:.4g}" for value in pair)

    return {
        "attack": cell["method"],
        "victim": cell["victim"],
        "B": str(cell["batch"]),
        "R": str(cell["restarts"]),
        "px": str(cell["size"]),
        "compiled": cell["compile"],
        "ms": f"{1e3 * s['step']:.4g}",
        "plain ms": f"{1e3 * s['plain_step']:.4g}",
        "ratio": f"{s['ratio']:.2f}",
        "by wall": f"{s['ratio_wall']:.2f}",
        "steps/s": f"{s['steps_per_second']:.3g}",
        "images/h": f"{s['images_per_hour']:.3g}",
        "MiB": both("tensors", MIB),
        "MiB process": both("resident", MIB),
        "% of peak": f"{100 * s['peak_share']:.3g} / {100 * s['plain_peak_share']:.3g}",
        "Lightning %": NOTHING if s["lightning"] is None else f"{100 * s['lightning']:+.1f}",
        "first s": f"{s['first_step']:.2g}",
        "curves": f"{s['drift']:.0e}",
    }


def line(record: Record) -> str:
    """A cell for the terminal."""
    c = columns(record)
    what = f"{c['attack']} {c['victim']} B={c['B']} R={c['R']} {c['px']}px, compiled {c['compiled']}"
    return (
        f"{what}: {c['ms']} ms, plain {c['plain ms']} ms, "
        f"{c['ratio']}x ({c['by wall']}x by wall); {c['MiB']} MiB; Lightning {c['Lightning %']} %; "
        f"first step {c['first s']} s; curves {c['curves']}"
    )


def table(about: Record, records: Sequence[Record]) -> Table:
    """All cells, and below them the meaning of every column."""
    lines = [columns(record) for record in records]
    gflops = about["peak"]["flops_per_second"] / 1e9
    above = f"Cost of a step on {about['device']}, torch {about['versions']['torch']}, {about['commit']}"
    below = (
        "ms: of a step of all restarts, medians, of processor time on a CPU; ratio: plain loop / suite; images/h: at "
        "the default number of steps; a / b: suite / plain loop; MiB: of tensors, beyond those from before; "
        f"% of peak: of the {gflops:.3g} GFLOP/s of an fp32 matrix product; Lightning: overhead of the Trainer on a "
        "step; first s: of the first step with its set-up; curves: largest relative difference of the two "
        "cost curves over the steps measured."
    )
    return Table(above, {heading: [cells[heading] for cells in lines] for heading in lines[0]}, below)


AXES = {"batch": "images in a batch B", "restarts": "restarts R", "size": "side of the images (px)"}


def draw(path: Path, records: Sequence[Record]) -> Path:
    """Seconds of a step along four axes, the others at their first measured value; suite solid, plain loop dashed."""
    cells = [{**record["cell"], "parameters": record["parameters"], **record["summary"]} for record in records]
    base = {axis: cells[0][axis] for axis in ("victim", "compile", *AXES)}
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
            for key, style in {"step": "o-", "plain_step": "x--"}.items():
                axis.plot([c[name] for c in points], [c[key] for c in points], style, color=f"C{color}", ms=4, lw=1)
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
        first.plot([], [], style, color="0.4", label=label)[0] for style, label in (("-", "suite"), ("--", "plain"))
    ]
    first.legend(handles=handles, fontsize=6)
    figure.savefig(path, dpi=160)
    return path
