"""`python -m benchmark.preset_table FILE`: the presets of every method, from the methods themselves."""

import sys
from collections.abc import Mapping
from pathlib import Path

from attacks.base import Attack
from attacks.engine.preset import Preset
from attacks.giml import GIML
from benchmark.registry import registered

INTRODUCTION = """\
# Presets

`make bench METHOD=gias PRESET=paper` runs a method as its paper says, `PRESET=code` as its authors' released code does.
Where a source leaves something open, *assumed* says what was chosen here. The preset `default` of every method is this
suite's own: few steps, for two CPU cores. `SET="tv=1e-3 eta_z=0.05"` sets single options on top of a preset; they are
explained in the docstring of the method's class."""


def table() -> str:
    """Markdown: a table of presets for each method that has any."""
    methods: dict[str, type[Attack]] = registered("attack")
    blocks = [INTRODUCTION, *(block(name, method.presets) for name, method in sorted(methods.items()))]
    blocks.append(block("GIML (`prior learn`)", GIML.presets))
    return "\n\n".join(blocks) + "\n"


def block(name: str, presets: Mapping[str, Preset]) -> str:
    lines = [f"## {name}", "", "| preset | source | assumed | options |", "|---|---|---|---|"]
    for preset, options in presets.items():
        told = " ".join(f"`{option}={value}`" for option, value in options.items())
        lines.append(f"| `{preset}` | {options.source} | {options.assumed or 'nothing'} | {told} |")
    return "\n".join(lines)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(table())
