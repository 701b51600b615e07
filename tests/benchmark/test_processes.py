"""Runs as a user starts them: killed, in several processes, with an attack of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ("seconds", "memory")


def command(out, *options):
    small = ["--victim=lenet", "--batch=2", "--tasks=4", "--size=32", "--wandb=off", f"--out={out}"]
    return [sys.executable, "-m", "benchmark", "run", *small, *options]


def start(out, *options, path=ROOT):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)]), "GIBENCH_OFFLINE": "1"}
    return subprocess.Popen(
        command(out, *options), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    stdout, stderr = process.communicate(timeout=500)
    assert process.returncode == 0, stderr
    return stdout


def rows(out):
    """The lines of rows.jsonl without time and memory, in the file's order."""
    (file,) = out.glob("*/rows.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [json.dumps({key: value for key, value in line.items() if key not in MEASURED}) for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    finish(start(out, "--attack=ig", "--steps=100", "--devices=1"))
    return rows(out)


def test_killed_in_two_processes_and_gone_on_in_one(undisturbed, tmp_path):
    process = start(tmp_path, "--attack=ig", "--steps=100", "--devices=2")
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("*/parts/*.jsonl")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)  # the second process must end by itself
    process.communicate(timeout=300)  # returns once both hold their pipes no longer
    finished = len(list(tmp_path.glob("*/parts/*.jsonl")))
    assert 1 <= finished < 4
    finish(start(tmp_path, "--attack=ig", "--steps=100", "--devices=1"))
    assert rows(tmp_path) == undisturbed
    assert not list(tmp_path.glob("*/parts"))


def test_two_processes_give_the_rows_of_one(undisturbed, tmp_path):
    finish(start(tmp_path, "--attack=ig", "--steps=100", "--devices=2"))
    assert rows(tmp_path) == undisturbed
    assert len(undisturbed) == 8


def test_the_attack_in_the_readme_runs_from_outside(tmp_path):
    (code,) = re.findall(r"```python\n(# plain_l2\.py\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 40
    (tmp_path / "plain_l2.py").write_text(code)
    printed = finish(start(tmp_path / "out", "--attack=plain_l2.PlainL2", "--steps=30", "--tasks=1", path=tmp_path))
    assert "plain_l2.PlainL2" in printed
    assert len(rows(tmp_path / "out")) == 2
