"""Tracks of label methods: fixed batches and victims, on which methods read labels from the update. Nothing is tuned.

A track is a YAML file in `labels/`, which begins with a comment on what it shows:

- version: goes up where results can change; a record of an older version is stale.
- trials: batches of each size.
- sizes, victims: each size of batch on each victim.
- options: of the setting, the same for all methods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LABEL_TRACKS = Path(__file__).parent / "labels"


@dataclass(frozen=True, kw_only=True)
class LabelTrack:
    """See the module; `path` of its file."""

    path: Path
    version: int
    trials: int
    sizes: Sequence[int]
    victims: Sequence[str]
    options: Mapping[str, Any]


def read(name: str) -> LabelTrack:
    """A track of the project."""
    path = LABEL_TRACKS / f"{name}.yaml"
    return LabelTrack(path=path, **yaml.safe_load(path.read_text()))
