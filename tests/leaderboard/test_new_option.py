"""An option that is added to `Options` reaches rows, board and page without an edit anywhere else."""

import json
import os
import subprocess
import sys

import pytest

# A process of its own, because the board derives its columns when it is imported.
WITH_COLOR = """
import sys
from dataclasses import dataclass
from leaderboard import options

@dataclass(frozen=True, kw_only=True)
class More(options.Options):
    color: str = options.option("red", "ROLE", "The color of everything.")

for function in (options.abouts, options.defaults):
    function.__defaults__ = (More,)

from leaderboard.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def lines(tmp_path, row):
    """A function that makes a board of two rows, the first without the option; returns its lines on the terminal."""

    def make(role):
        rows = [row(task="t0"), row(task="t1", color="blue")]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        done = subprocess.run(
            [sys.executable, "-c", WITH_COLOR.replace("ROLE", role), tmp_path],
            capture_output=True, text=True, timeout=120, check=True, env=os.environ | {"COLUMNS": "300"},
        )  # fmt: skip
        return [line.split() for line in done.stdout.splitlines()]

    return make


@pytest.mark.parametrize("role", ["setting", "knowledge", "method"])
def test_it_is_a_column_and_older_rows_have_its_default(lines, tmp_path, role):
    found = lines(role)
    assert ["attack", "color"] in [line[:2] for line in found]
    assert sorted(line[1] for line in found if line[:1] == ["ig"]) == ["blue", "red"]
    assert "color" in (tmp_path / "leaderboard.csv").read_text().splitlines()[0].split(",")
    assert '"color":"blue"' in (tmp_path / "leaderboard.html").read_text()


def test_it_makes_no_entries_of_its_own_where_it_only_concerns_the_execution(lines):
    assert [line[:2] for line in lines("execution") if line[:1] == ["ig"]] == [["ig", "2"]]
