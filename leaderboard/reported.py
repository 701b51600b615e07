"""Published numbers from `reported.yaml`, shown beside measured ones."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from leaderboard.options import row_keys
from leaderboard.rows import FlatRow
from victims.errors import InputError

FILE = Path(__file__).with_suffix(".yaml")
FIELDS = frozenset(row_keys()) - {"attack"}
TABLE = {"source": str, "setting": dict, "note": str, "by": str, "with": dict, "values": dict}
OPTIONAL = {"by", "with"}


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What one paper prints for one method in one setting.

    Attributes:
        table: its key in the file, which recipes name.
        source: paper and table.
        method: the name in the paper.
        attack: the name in this suite; `labels` for label recovery alone.
        setting: fields of a row, as far as the paper states them; of `options` those that matter, null for a default.
        values: by metric.
        note: how the protocol of the paper differs from that of this suite.
    """

    table: str
    source: str
    method: str
    attack: str
    setting: Mapping[str, Any]
    values: Mapping[str, float]
    note: str

    def matches(self, row: FlatRow) -> bool:
        """Whether the row is of this attack in this setting, as far as the paper states it."""
        stated = {key: value for key, value in self.setting.items() if key != "options"}
        options = self.setting.get("options", {})
        return (
            (row["attack"], row["control"]) == (self.attack, "none")
            and all(row.get(key) == value for key, value in stated.items())
            and all(str(row["options"].get(name)) == str(value) for name, value in options.items())
        )


def reported(path: Path = FILE) -> list[Reported]:
    """All published numbers, in the order of the file.

    Raises:
        InputError: the file cannot be read, or a table in it has a mistake; the message says where and what.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} is not readable YAML ({' '.join(str(error).split())}); fix it.") from None
    shaped = isinstance(content, dict) and content.keys() == {"metrics", "methods", "tables"}
    if not shaped or not all(isinstance(part, dict) for part in content.values()):
        raise InputError(f"{path} does not hold `metrics`, `methods` and `tables`; fix it.")
    found = []
    for name, table in content["tables"].items():
        try:
            found += entries_of(name, table, content["methods"], content["metrics"])
        except ValueError as error:
            raise InputError(f"{path}, table {name}: {error}; fix it.") from None
    return found


def entries_of(name: str, table: Any, methods: Mapping[str, Any], metrics: Collection[str]) -> list[Reported]:
    """One for each method and value of `by`.

    Raises:
        ValueError: says what is wrong.
    """
    if not isinstance(table, dict):
        raise ValueError("it is not a mapping")
    if wrong := (table.keys() ^ TABLE.keys()) - OPTIONAL:
        raise ValueError(f"{', '.join(sorted(map(str, wrong)))} is missing or not known")
    for key, value in table.items():
        if not isinstance(value, TABLE[key]):
            raise ValueError(f"{key} is not a {TABLE[key].__name__}")
    by, found = table.get("by"), []
    for method, values in table["values"].items():
        if not isinstance(methods.get(method), dict) or "attack" not in methods[method]:
            raise ValueError(f"method {method} has no attack in `methods`")
        if not isinstance(values, dict) or not values:
            raise ValueError(f"{method} has no values by metric")
        own = {key: value for key, value in methods[method].items() if key != "attack"}
        for place, numbers in places(values, by).items():
            setting = {**table["setting"], **own, **({by: place} if by else {}), **table.get("with", {}).get(place, {})}
            if unknown := setting.keys() - FIELDS:
                raise ValueError(f"{', '.join(sorted(unknown))} is not a field of a row's setting")
            check(method, numbers, metrics)
            entry = {"attack": methods[method]["attack"], "setting": setting, "values": numbers}
            found.append(Reported(table=name, source=table["source"], method=method, note=table["note"], **entry))
    return found


def places(values: Mapping[str, Any], by: str | None) -> dict[Any, dict[str, Any]]:
    """Values by place and then by metric, from values by metric and then by place; without `by` there is one place.

    Raises:
        ValueError: the values of a metric are not given by place, although there is a `by`.
    """
    if by is None:
        return {None: dict(values)}
    turned: dict[Any, dict[str, Any]] = {}
    for metric, column in values.items():
        if not isinstance(column, dict):
            raise ValueError(f"{metric} has no values by {by}")
        for place, number in column.items():
            turned.setdefault(place, {})[metric] = number
    return turned


def check(method: str, numbers: Mapping[str, Any], metrics: Collection[str]) -> None:
    """
    Raises:
        ValueError: a metric is not one of `metrics`, or a value is not a number.
    """
    for metric, number in numbers.items():
        if metric not in metrics:
            raise ValueError(f"{method} has the metric {metric}, which is none of {', '.join(sorted(metrics))}")
        if isinstance(number, bool) or not isinstance(number, int | float) or not isfinite(number):
            raise ValueError(f"the {metric} of {method} is {number!r}, which is not a number")
