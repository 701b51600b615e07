"""The lower bounds of the dependencies, which `make test-lowest` installs."""

import re
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_dependency_is_held_at_its_lower_bound():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    (line,) = re.findall(r"^\t@(sed .*pyproject\.toml) > ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    held = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert held == [re.sub(r"\[.*\]|,.*", "", one).replace(">=", "==") for one in needed]


def test_why_a_dependency_is_there_stands_beside_it():
    text = (ROOT / "pyproject.toml").read_text()
    bounds = [line for line in text.splitlines() if re.match(r' +"[\w-]+.*>=', line)]
    assert bounds
    assert all("# " in line for line in bounds)
