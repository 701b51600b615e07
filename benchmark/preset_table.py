"""`python -m benchmark.preset_table FILE`: the presets of every method, from the methods themselves."""

import inspect
import sys
from pathlib import Path

from attacks.base import Attack
from attacks.giml import GIML
from benchmark.method_options import Method
from benchmark.registry import registered

INTRODUCTION = """\
# Presets

`make bench METHOD=gias PRESET=paper` gives a method the options of its paper, `PRESET=code` those of its authors'
released code, and `PRESET=gifd` those with which the authors of GIFD ran it for their tables. A preset sets options of
the method alone. Model, images, batch and defense stay those of the run, by default an untrained `convnet`, batches of
4 and `sparsification:0.5`; `make reproduce RECIPE=gifd-table3a SIZE=paper` runs a published table in its own setting.

*The paper* and *the authors* are those named below a heading. Where a source leaves something open, *assumed* says
what was chosen here; an option that is only named there has a value of this suite's own. A method returns the images
of the least cost of all its steps and restarts, also where a source's code returns the last ones. There are
exceptions, which return the last images, of the restart whose last images cost least: `pnp` and `pnp_gi`, `gifd` with
`variant=f`, and any method with `REFINE=`. The preset `default` of every method is this suite's own too: few steps,
for two CPU cores. Without `PRESET`, a method has the options that `make tune` found for it on the track, if it was
tuned there, and else those of `default`. `SET="tv=1e-3 eta_z=0.05"` sets single options on top of a preset; they are
explained in the docstring of the method's class."""


def table() -> str:
    """Markdown: a table of presets for each method that has any."""
    methods: dict[str, type[Attack]] = registered("attack")
    blocks = [INTRODUCTION, *(block(name, method) for name, method in sorted(methods.items()) if method.presets)]
    return "\n\n".join([*blocks, block("GIML (`prior learn`)", GIML)]) + "\n"


def block(name: str, method: type[Method]) -> str:
    """A heading, the paper of the method from its file's docstring, and a line for each preset."""
    paper = "\n".join(papers(method))
    return f"## {name}\n\n{paper}\n\n{presets(method)}"


def papers(method: type) -> list[str]:
    """The lines that the docstring of the method's file begins with."""
    text, _, _ = (inspect.getdoc(sys.modules[method.__module__]) or "").partition("\n\n")
    return text.splitlines()


def presets(method: type[Method]) -> str:
    """A line for each preset."""
    lines = ["| preset | source | assumed | options |", "|---|---|---|---|"]
    for preset, options in method.presets.items():
        told = " ".join(f"`{option}={value}`" for option, value in options.items())
        assumed = options.assumed or "nothing"
        trained = f". Its prior is not shipped: `{options.trained_by}`" if options.trained_by else ""
        lines.append(f"| `{preset}` | {options.source} | {assumed}{trained} | {told} |")
    return "\n".join(lines)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(table())
