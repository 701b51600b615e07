"""What the trainings share: one at a time writes a file, a full disk spoils none, and the record can be followed."""

import errno
import json
from pathlib import Path

import pytest
import torch

from benchmark.__main__ import main
from benchmark.launch.lock import alone
from benchmark.priors import inverter
from benchmark.priors.recorded import command
from priors import train as dcgan
from priors import train_denoiser as ffdnet

TRAININGS = {
    "train": ["--steps=1"],
    "train-denoiser": ["--steps=1"],
    "train-inverter": ["--steps=1", "--updates=2", "--width=4", "--hashed=8"],
    "learn": ["--steps=1", "--rounds=1", "--clients=2", "--set=N=1 steps_z=1 tau=1 meta=adam"],
}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(dcgan, "BATCH", 8)
    for module in (dcgan, ffdnet, inverter):
        monkeypatch.setattr(module, "CHECKPOINT_EVERY", 1)
    with torch.random.fork_rng():
        yield


@pytest.fixture(params=TRAININGS)
def train(request, tmp_path):
    def start(*more):
        return main(["prior", request.param, str(tmp_path / "mine.safetensors"), *TRAININGS[request.param], *more])

    return start


def test_a_second_training_of_one_file_is_refused_in_one_line(train, tmp_path, capsys):
    with alone(tmp_path, "mine.safetensors"):
        assert train() == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("benchmark: ")]
    assert "mine.safetensors is being worked on by process" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("steps", [0, -5])
def test_a_training_of_no_steps_is_refused_and_the_older_file_stays(train, tmp_path, capsys, steps):
    (tmp_path / "mine.safetensors").write_bytes(b"older")
    assert train(f"--steps={steps}") == 2
    assert f"steps is {steps}; give 1 or more" in capsys.readouterr().err
    assert (tmp_path / "mine.safetensors").read_bytes() == b"older"


@pytest.mark.parametrize("seed", [2**64, -(2**63)])
def test_a_seed_that_is_too_large_is_refused_in_one_line(train, tmp_path, capsys, seed):
    assert train(f"--seed={seed}") == 2
    assert f"benchmark: seed is {seed}; give a number below 2^63" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_so_is_that_of_a_measured_generator(capsys):
    assert main(["prior", "quality", "dcgan", f"--seed={2**64}"]) == 2
    assert f"benchmark: seed is {2**64}; give a number below 2^63" in capsys.readouterr().err


@pytest.mark.parametrize("full", ["mine.state", "mine.safetensors", "mine.json"])
def test_a_full_disk_is_one_line_and_leaves_the_older_files(train, tmp_path, capsys, monkeypatch, full):
    older, write = {f"mine.{kind}": kind.encode() for kind in ("safetensors", "json")}, Path.write_bytes
    for name, content in older.items():
        (tmp_path / name).write_bytes(content)

    def until(path, content):
        if not path.name.startswith(full):
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", until)
        assert train() == 1
    assert "the disk is full" in capsys.readouterr().err.splitlines()[-1]
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left.pop("mine.state", None) is None or full != "mine.state"
    assert left == older
    assert train() == 0


def test_the_recorded_command_says_folders_that_are_not_the_default(train, tmp_path):
    assert train(f"--data-dir={tmp_path / 'my data'}") == 0
    assert f"--data-dir '{tmp_path}/my data'" in json.loads((tmp_path / "mine.json").read_text())["command"]


def test_the_recorded_command_can_be_typed():
    written = command("train", Path("out/my prior.safetensors"), {"data": "folder:/my photos", "steps": 3})
    assert written == "python -m benchmark prior train 'my prior.safetensors' --data 'folder:/my photos' --steps 3"
