"""The command of a training, as it is recorded with what was trained."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leaderboard.options import Options


def command(name: str, out: Path, options: Mapping[str, Any]) -> str:
    """`python -m benchmark prior NAME OUT --option value ...`, without the folders of data and weights."""
    words = [f"python -m benchmark prior {name}", shlex.quote(out.name)]
    return " ".join([*words, *(f"--{option} {shlex.quote(str(value))}" for option, value in options.items())])


def folders(data_dir: Path, weights_dir: Path = Options.weights_dir) -> str:
    """The words for those that are not the default; they name no training, as its images and weights do."""
    words = {"data-dir": (data_dir, Options.data_dir), "weights-dir": (weights_dir, Options.weights_dir)}
    return "".join(
        f" --{name} {shlex.quote(str(given))}" for name, (given, default) in words.items() if given != default
    )
