"""Each kind of thing is added by one file: in its folder it has a name, elsewhere its dotted path.

The dotted paths are in `test_contributing.py`, a metric is in `benchmark/scoring/test_own_metric.py`.
"""

import json
import sys
from importlib import import_module

import pytest
import torch

from benchmark.__main__ import main
from tests.test_contributing import EXAMPLES

FILES = {  # kind: example, folder, name of the file there, option
    "attack": ("my_attack", "attacks", "median", "--attack=ig_median"),
    "defense": ("my_defense", "defenses", "rounding", "--defense=rounding:3"),
    "prior": ("my_prior", "priors", "clouds", "--prior=clouds"),
    "published weights": ("my_prior", "priors", "clouds", "--prior=clouds-sky"),
    "victim": ("my_victim", "victims.models", "patches", "--victim=patches"),
    "loss": ("my_loss", "victims.losses", "poly", "--loss=poly:2"),
    "data set": ("my_data", "victims.data", "stripes", "--data=stripes"),
}


@pytest.fixture
def added(request, tmp_path, monkeypatch):
    """One more file in the folder of its kind."""
    example, package, name, option = request.param
    (tmp_path / f"{name}.py").write_text(EXAMPLES[example])
    folder = import_module(package)
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    yield option
    sys.modules.pop(f"{package}.{name}", None)
    vars(folder).pop(name, None)


@pytest.mark.parametrize("added", FILES.values(), ids=FILES, indirect=True)
def test_a_file_in_the_folder_has_a_name(added, tmp_path):
    method = "gias" if added.startswith("--prior") else "ig"
    (tmp_path / "priors").mkdir()
    if added == "--prior=clouds-sky":
        clouds = import_module("priors.clouds").Clouds()
        torch.save(clouds.state_dict(), tmp_path / "priors" / "clouds.pt")
    few = ["--batch=2", "--tasks=1", "--steps=4", "--restarts=1", "--devices=1", "--wandb=off", "--victim=lenet"]
    places = [f"--weights-dir={tmp_path}", f"--out={tmp_path / 'out'}"]
    assert main(["run", f"--attack={method}", *few, *places, added]) == 0
    (file,) = (tmp_path / "out").glob("*/rows.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    option, _, value = added.removeprefix("--").partition("=")
    assert [(row[option], row["status"]) for row in rows] == [(value, "ok")] * 2
