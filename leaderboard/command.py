"""The command that repeats a run, from its config.yaml or, where that is missing, from its rows."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leaderboard.options import Options, abouts, defaults
from leaderboard.rows import FlatRow


def command(config: Mapping[str, Any], options: type[Options] = Options) -> str:
    """`python -m benchmark run --method=...` with the options that differ from the defaults.

    A shell runs nothing but this command, whatever the values are: they may be those of other people.
    """
    default = defaults(options) | {"attack": None}  # it is always named
    words = [
        _quoted(f"--{(about.alias or name).replace('_', '-')}={_word(config[name])}")
        for name, about in abouts(options).items()
        if about.repeated and name in config and config[name] != _plain(default[name])
    ]
    return " ".join(["python -m benchmark run", *words])


def config_of(rows: Sequence[FlatRow]) -> dict[str, Any]:
    """The options of the run that wrote `rows`, as far as rows hold them."""
    row = rows[0]
    given = row["labels"] == "given" and not row["label_method"]
    return {name: row[about.rows[0]] for name, about in abouts().items() if about.rows} | {
        # What was tuned for a track, off that track, is in the options.
        "preset": "default" if row["preset"] == "tuned" and not row.get("track") else row["preset"],
        "tasks": len({other["task"] for other in rows}),
        "labels": row["label_method"] or ("given" if given else "none"),
        "adapt": row["adapt"] or row["defense"] == "none",
        "prior": defaults()["prior"] if row["prior"] == "none" else row["prior"],
        "restarts": row["restarts"] or None,  # a mean image has none, nor steps
        "steps": row["steps"] or None,
        "set": [f"{name}={value}" for name, value in row["options"].items() if name != "plan"],
    }


def _plain(value: Any) -> Any:
    """A value as config.yaml has it."""
    return str(value) if isinstance(value, Path) else value


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _quoted(word: str) -> str:
    """One word of a shell. What a terminal could take for a key is written as bytes, in a form of bash and zsh."""
    if word.isprintable():
        return shlex.quote(word)
    plain = (c if c.isprintable() and c not in "\\'" else "".join(f"\\x{b:02x}" for b in c.encode()) for c in word)
    return f"$'{''.join(plain)}'"
