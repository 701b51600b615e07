"""Figures of matplotlib, which is not imported here: it takes longer than a board."""

import io
from pathlib import Path
from typing import Any

from leaderboard.files import write_atomically


def literal(text: str) -> str:
    """For matplotlib, which takes what stands between two dollar signs for a formula."""
    return text.replace("$", r"\$")


def write_figure(path: Path, figure: Any) -> None:
    """Write a figure of matplotlib as `write_atomically` does."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160)
    write_atomically(path, file.getvalue())
