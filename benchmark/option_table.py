"""`python -m benchmark.option_table FILE`: the table of a run's options, from the options themselves."""

import sys
from pathlib import Path
from typing import get_args

from leaderboard.options import Options, Role, abouts, defaults, variable

HEADINGS: dict[Role, str] = {
    "method": "The method: how the attack works",
    "setting": "The setting: what is attacked",
    "knowledge": "The knowledge: what the attacker has besides the update",
    "execution": "The execution: how it is computed",
}


def table(options: type[Options] = Options) -> str:
    """Markdown: a table of options for each role."""
    blocks = [
        "# Options of a run",
        "`make bench NAME=value ...` and `python -m benchmark run --name=value ...` take the same options. Attacks are "
        "compared on the board where all options of the setting are the same. A row says what was used.",
    ]
    values = defaults(options)
    for role in get_args(Role):
        lines = [f"## {HEADINGS[role]}", "", "| option | default | meaning | keys of a row |", "|---|---|---|---|"]
        for name, about in abouts(options).items():
            if about.role == role:
                keys = ", ".join(f"`{key}`" for key in about.rows)
                lines.append(f"| `{variable(name, options)}=` | {shown(values[name])} | {about.help} | {keys} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def shown(value: object) -> str:
    if isinstance(value, bool):
        return "`yes`" if value else "`no`"
    return "" if value in (None, "", []) else f"`{value}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(table())
