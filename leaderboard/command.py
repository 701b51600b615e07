"""The command that repeats a run, from its config.yaml or, where that is missing, from its rows."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from leaderboard.board import Row

# name in config.yaml -> variable of `make bench`, and the default that need not be said (a test holds both against
# the command line's own). Options that change no row and belong to one machine are left out.
OPTIONS: dict[str, tuple[str, Any]] = {
    "attack": ("METHOD", None),  # always said
    "preset": ("PRESET", "default"),
    "data": ("DATA", "photos"),
    "data_dir": ("DATA_DIR", "data"),
    "split": ("SPLIT", "test"),
    "size": ("SIZE", 32),
    "resize": ("RESIZE", "shorter"),
    "victim": ("VICTIM", "convnet"),
    "victim_weights": ("VICTIM_WEIGHTS", "random"),
    "victim_mode": ("MODE", "eval"),
    "rounds": ("ROUNDS", 1),
    "between": ("BETWEEN", 0),
    "lr": ("LR", None),
    "epochs": ("EPOCHS", 1),
    "mini_batch": ("MINI_BATCH", None),
    "clients": ("CLIENTS", 1),
    "know_lr": ("KNOW_LR", True),
    "match": ("MATCH", "aga"),
    "prior": ("PRIOR", "dcgan-photos32"),
    "defense": ("DEFENSE", "sparsification:0.5"),
    "adapt": ("ADAPT", True),
    "labels": ("LABELS", "given"),
    "bn": ("BN", "none"),
    "control": ("CONTROL", "none"),
    "batch": ("BATCH", 4),
    "batches": ("BATCHES", "random"),
    "tasks": ("TASKS", 6),
    "precision": ("PRECISION", "float32"),
    "restarts": ("RESTARTS", None),
    "steps": ("STEPS", None),
    "group": ("GROUP", 1),
    "chunk": ("CHUNK", None),
    "compile": ("COMPILE", "auto"),
    "weights_dir": ("WEIGHTS", "weights"),
    "seed": ("SEED", 0),
}


def command(config: Mapping[str, Any]) -> str:
    """`make bench METHOD=...` with the options that differ from the defaults."""
    words = [
        f"{variable}={_word(config[name])}"
        for name, (variable, default) in OPTIONS.items()
        if name in config and config[name] != default
    ]
    single = config.get("set") or []
    return " ".join(["make bench", *words, *([f"SET={shlex.quote(' '.join(single))}"] if single else [])])


def config_of(rows: Sequence[Row]) -> dict[str, Any]:
    """The options of the run that wrote `rows`, as far as a row has them: folders of files are not in it."""
    row = rows[0]
    options = {name: value for name, value in row.items() if name in OPTIONS}
    given = row["labels"] == "given" and not row["label_method"]
    return options | {
        "batch": row["batch_size"],
        "tasks": len({other["task"] for other in rows}),
        "labels": row["label_method"] or ("given" if given else "none"),
        "adapt": row["adapt"] or row["defense"] == "none",
        "prior": OPTIONS["prior"][1] if row["prior"] == "none" else row["prior"],
        "restarts": row["restarts"] or None,  # a mean image has none, nor steps
        "steps": row["steps"] or None,
        "set": [f"{name}={value}" for name, value in row["options"].items() if name != "plan"],
    }


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else shlex.quote(str(value))
