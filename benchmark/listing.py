"""`python -m benchmark list`: everything that has a name, a line each."""

import sys
from json import dumps
from shutil import get_terminal_size

from benchmark.names import KINDS, known

HEADINGS = {
    "attack": "METHOD=",
    "prior": "PRIOR=",
    "victim": "VICTIM=, or torchvision:NAME, timm:NAME",
    "data": "DATA=",
    "defense": "DEFENSE=",
    "label method": "LABELS=",
    "loss": "LOSS=",
    "local optimizer": "LOCAL_OPTIMIZER=",
    "metric": "metrics",
    "recipe": "make reproduce RECIPE=",
    "track": "TRACK=",
    "label track": "make record TRACK=, of label methods",
}


def list_names(*, json: bool = False) -> None:
    """Everything that has a name, by kind: methods, priors, victims, data, defenses, metrics, recipes, tracks, ...

    Args:
        json: as one JSON object: summary by kind and name.
    """
    found = {kind: {name: each.summary for name, each in known(kind).items()} for kind in KINDS}
    if json:
        print(dumps(found, indent=2))
        return
    width = get_terminal_size().columns if sys.stdout.isatty() else None
    column = 2 + max(len(name) for names in found.values() for name in names)
    for kind, names in found.items():
        print(HEADINGS[kind], *(f"  {name:{column}}{summary}"[:width] for name, summary in names.items()), "", sep="\n")
