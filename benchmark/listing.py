"""`python -m benchmark list`: everything that has a name, a line each."""

import json
from shutil import get_terminal_size

from benchmark.names import KINDS, known

HEADINGS = {
    "attack": "METHOD=",
    "prior": "PRIOR=",
    "victim": "VICTIM=, or torchvision:NAME, timm:NAME",
    "data": "DATA=",
    "defense": "DEFENSE=",
    "label method": "LABELS=",
    "metric": "metrics",
    "recipe": "make reproduce RECIPE=",
}


def list_names(*, json: bool = False) -> None:
    """Everything that has a name: methods, priors, victims, data sets, defenses, label methods, metrics, recipes.

    Args:
        json: as one JSON object, name and summary by kind.
    """
    found = {kind: {name: each.summary for name, each in known(kind).items()} for kind in KINDS}
    print(as_json(found) if json else as_text(found))


def as_json(found: dict[str, dict[str, str]]) -> str:
    return json.dumps(found, indent=2)


def as_text(found: dict[str, dict[str, str]]) -> str:
    """A block for each kind, a line for each name, cut to the width of the terminal."""
    width = get_terminal_size(fallback=(120, 24)).columns
    column = 2 + max(len(name) for names in found.values() for name in names)
    blocks = []
    for kind, names in found.items():
        lines = [f"  {name:{column}}{summary}" for name, summary in names.items()]
        blocks.append("\n".join([HEADINGS[kind], *(line[:width] for line in lines)]))
    return "\n\n".join(blocks)
