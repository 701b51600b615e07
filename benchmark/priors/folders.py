"""Folders in the recorded command of a training."""

import shlex
from pathlib import Path

from leaderboard.options import Options


def folders(data_dir: Path, weights_dir: Path = Options.weights_dir) -> str:
    """The words for those that are not the default; they name no training, as its images and weights do."""
    words = {"data-dir": (data_dir, Options.data_dir), "weights-dir": (weights_dir, Options.weights_dir)}
    return "".join(
        f" --{name} {shlex.quote(str(given))}" for name, (given, default) in words.items() if given != default
    )
