"""The row: one line of JSON per scored image, with everything needed to run it again.

This is the only module that knows how older versions wrote rows.
"""

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from math import isnan
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from leaderboard.foreign import checked, contents
from leaderboard.options import Options, abouts, defaults, row_keys

PROTOCOL = 4  # raised when numbers of older code cannot be compared with new ones

FlatRow = dict[str, Any]
"""A row as it stands in a file: its settings and scores are keys like all others."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """The scores of one image, and how they were obtained.

    Attributes:
        settings: the values of the options of the run, by the keys that `Options` gives them in a row. They are what
            was used: `restarts` and `steps` are numbers, `labels` is `given`, `inferred` or `joint`, `label_method` is
            empty where the labels were not inferred, `options` holds the plan and what differs from the preset. Digests
            are of code, weights, classes and split, see `benchmark.contents`; empty in older rows.
        scores: by metric, None where there is none.
        higher_is_better: by metric.
        ranges: the least and the greatest value by metric, None where there is none.
        lpips_backbone: the network of the metric `lpips`, or the reason why there is none.
        status: `diverged` where no start ever had a finite cost: the scores are those of a failure.
        cost: the attacker's own, None where it diverged.
        degenerate: whether the private image is of almost one color, so that its scores say little of a leak.
        certified: whether the attacker knows, by a check of its own, that its image is one of those from which the
            update was computed; None where it has none.
        image_digest: the beginning of a SHA-256 of the private image and its label; empty in older rows.
        label_counts, label_existence: scores of the labels that the attack used, None where nothing was attacked.
        shared_parameters, total_parameters: numbers in the model that the client trains and shares, and all of them;
            None in older rows, of which all were shared.
        axis: where defense and victim stand on the axes along which charts compare them, by the name of the axis; an
            attack without a defense, or on a victim without training, stands at 0.
        victim_accuracy: the share of test images that the victim classifies right after its training, see
            `epochs_trained`; None without it, and in older rows.
        training_seconds: of the prior, where they are known: an attack by a trained inverter takes them before it sees
            an update.
        track_version: of the track that the row says; 1 in older rows.
        gradient_path: how the gradients of the victim were computed.
        torch_version: of PyTorch, which rounds otherwise in another one; empty in older rows.
        seconds: of the task.
        memory: the peak until the end of the task in MiB: on a GPU that of tensors since the group of the task began,
            on a CPU that of the whole process since its start.
    """

    settings: Mapping[str, Any]
    task: str
    image: str
    label: int
    status: Literal["ok", "diverged"]
    cost: float | None
    scores: Mapping[str, float | None]
    higher_is_better: Mapping[str, bool]
    lpips_backbone: str
    gradient_evaluations: int
    seconds: float
    memory: int
    device: str
    code: str
    protocol: int
    degenerate: bool = False
    certified: bool | None = None
    image_digest: str = ""
    label_counts: float | None = None
    label_existence: float | None = None
    shared_parameters: int | None = None
    total_parameters: int | None = None
    ranges: Mapping[str, list[float | None]] = field(default_factory=dict)
    axis: Mapping[str, float] = field(default_factory=dict)
    training_seconds: float | None = None
    gradient_path: str = ""
    victim_accuracy: float | None = None
    track_version: int = 1
    torch_version: str = ""

    def __post_init__(self) -> None:
        if wrong := self.settings.keys() ^ set(row_keys()):
            raise ValueError(f"settings of a row: {', '.join(sorted(wrong))} missing or not an option's key")

    def flat(self) -> FlatRow:
        """The row as it stands in a file."""
        values = asdict(self)
        settings, scores = values.pop("settings"), values.pop("scores")
        return settings | values | scores


def read_rows(path: Path) -> tuple[list[FlatRow], list[str]]:
    """The rows of one file, which may be compressed (.gz), and one warning for each line that is none.

    A torn or foreign line is left out with a warning; the other lines are kept.

    Raises:
        OSError: there is no such file, or it is not a regular one.
    """
    rows, warnings = [], []
    content = gzip.decompress(contents(path)) if path.suffix == ".gz" else contents(path)
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(_read(line))
        except json.JSONDecodeError:
            warnings.append(f"{path}:{number} is not a whole row (torn write?); left out, run it again.")
        except (TypeError, KeyError, AttributeError, ValueError, RecursionError):
            warnings.append(f"{path}:{number} is not a row of this version of the suite; left out.")
    return rows, warnings


def _read(line: str) -> FlatRow:
    """One row.

    Raises:
        JSONDecodeError: the line is torn.
        TypeError, KeyError, AttributeError, ValueError, RecursionError: it is not a row.
    """
    row = _updated(checked(json.loads(line)))
    if missing := (REQUIRED | row["higher_is_better"].keys()) - row.keys():
        raise KeyError(*missing)
    for key, kinds in KINDS.items():
        if not isinstance(row[key], kinds):
            raise TypeError(key)
    for mapping, kind in ((row["higher_is_better"], bool), (row["axis"], int | float)):
        if not all(isinstance(value, kind) for value in mapping.values()):
            raise TypeError(mapping)
    if not all(_is_range(value) for value in row["ranges"].values()):
        raise TypeError("ranges")
    return row


def has_numbers(row: FlatRow) -> bool:
    """Whether all scores of a row, its cost and seconds are numbers, or there are none."""
    numbers = (*row["higher_is_better"], "seconds", "cost")
    return all(row[key] is None or (isinstance(row[key], int | float) and not isnan(row[key])) for key in numbers)


def _is_range(value: Any) -> bool:
    ends = (int, float, NoneType)
    return isinstance(value, list) and len(value) == 2 and all(isinstance(end, ends) for end in value)


def _kinds(hint: Any) -> tuple[type, ...]:
    """The types that a value of an annotated field has in JSON."""
    if get_origin(hint) is Literal or hint in (Path, str):
        return (str,)
    if hint in (int, float):
        return (int, float)
    if get_origin(hint) in (UnionType, Union):
        return tuple(kind for part in get_args(hint) for kind in _kinds(part))
    return (dict,) if get_origin(hint) in (Mapping, list) else (hint,)  # `set` is a list of NAME=VALUE


_HINTS = get_type_hints(Options)
KINDS = {about.rows[0]: _kinds(_HINTS.get(name, object)) for name, about in abouts().items() if about.rows}
KINDS |= {key: (str,) for about in abouts().values() for key in about.rows[1:]}
KINDS |= {name: _kinds(hint) for name, hint in get_type_hints(Row).items() if name not in ("settings", "scores")}

# Rows of older versions

# A row that was written before a key existed has the value that every run had until then.
OPTIONAL = {
    about.rows[0]: defaults()[name]
    for name, about in abouts().items()
    if about.rows and name not in ("attack", "set")  # every row has these
}
OPTIONAL["preset"] = "default"  # until there were tuned options
OPTIONAL |= {each.name: each.default for each in fields(Row) if each.default is not MISSING}
OPTIONAL |= {key: "" for about in abouts().values() for key in about.rows[1:] if key != "prior_trained_on"}
REQUIRED = {*row_keys(), *(each.name for each in fields(Row))} - OPTIONAL.keys() - {"settings", "scores"}
ALWAYS_SCORED = {"psnr": True, "ssim": True, "fsim": True, "lpips": False, "mse": False, "iip": True}
RANGES = {"psnr": [0, 100], "ssim": [-1, 1], "fsim": [0, 1], "lpips": [0, None], "mse": [0, 1], "iip": [0, 1]}


def _updated(row: FlatRow) -> FlatRow:
    """A row as this version would have written it."""
    row = renamed({**OPTIONAL, "higher_is_better": ALWAYS_SCORED, **row})
    row["ranges"] = {name: RANGES.get(name, [None, None]) for name in row["higher_is_better"]} | row.get("ranges", {})
    sparsity = re.fullmatch(r"sparsification:([0-9.]+)", row["defense"])
    return {"axis": {"share of the update that is not sent": float(sparsity[1])} if sparsity else {}} | row


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run with the values that are now called otherwise under their present names."""
    found = dict(options)
    if found.get("bn") == "unmixed":
        found["bn"] = "recovered"
    if isinstance(found.get("defense"), str):
        found["defense"] = re.sub(r"(^|\+)quantisation:", r"\1quantization:", found["defense"])
    return found
