"""Runs as a user starts them: killed, in several processes, with an attack of the user."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmark.launch.strategy import Heartbeat

ROOT = Path(__file__).resolve().parents[3]
MEASURED = ("seconds", "memory")


def command(out, *options):
    small = ["--victim=lenet", "--batch=2", "--tasks=4", "--size=32", "--wandb=off", f"--out={out}"]
    return [sys.executable, "-m", "benchmark", "run", *small, *options]


def start(out, *options, path=ROOT, through=(), **variables):
    """The command in a process of its own.

    Args:
        through: the arguments of a launcher, which come between the interpreter and `-m benchmark`.
        variables: of the environment.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)]), "GIBENCH_OFFLINE": "1"}
    interpreter, *rest = command(out, *options)
    return subprocess.Popen(
        [interpreter, *through, *rest],
        cwd=ROOT, env=environment | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def start_by_torchrun(out, *options):
    return [start(out, *options, through=["-m", "torch.distributed.run", "--nproc_per_node=2"])]


def start_by_srun(out, *options):
    """Two tasks with the environment that srun gives them, on two machines with one task each."""
    step = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2"}
    return [
        start(out, *options, SLURM_PROCID=str(rank), SLURM_LOCALID="0", SLURM_NODEID=str(rank), **step)
        for rank in range(2)
    ]


def start_by_lightning(out, *options):
    return [start(out, *options, "--devices=2")]


def start_on_two_machines(out, *options):
    """Lightning's own launcher on each of two machines, with its NODE_RANK."""
    return [start(out, *options, "--devices=1", "--nodes=2", NODE_RANK=str(node)) for node in range(2)]


STARTERS = [start_by_lightning, start_by_torchrun]
SLOWLY = [pytest.param(starter, marks=pytest.mark.slow) for starter in (start_by_srun, start_on_two_machines)]


def until_parts(out, process, count=1):
    """Wait until tasks are done but not yet merged; returns their number."""
    return until_files(out, "*/parts/[!.]*.jsonl", process, count)


def until_files(out, pattern, process, count=1):
    """Wait until there are so many, while the process runs; returns their number."""
    deadline = time.monotonic() + 300
    while len(files := list(out.glob(pattern))) < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return len(files)


def launched_by(process):
    """The one process that another has started."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    (child,) = listed.stdout.split()
    return int(child)


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


@pytest.mark.slow
def test_a_run_killed_in_two_processes_continues_in_one(undisturbed, tmp_path):
    process = start(tmp_path, "--attack=ig", "--steps=100", "--devices=2")
    until_parts(tmp_path, process)
    process.send_signal(signal.SIGKILL)  # the second process must end by itself
    process.communicate(timeout=300)  # returns when both have closed their pipes
    finished = len(list(tmp_path.glob("*/parts/*.jsonl")))
    assert 1 <= finished < 4
    assert not list(tmp_path.glob("*/truth"))  # an attack that goes on later finds none
    finish(start(tmp_path, "--attack=ig", "--steps=100", "--devices=1"))
    assert rows(tmp_path) == undisturbed
    assert not list(tmp_path.glob("*/parts"))
    assert len(list(tmp_path.glob("*/truth/*.png"))) == 8


@pytest.mark.parametrize("starter", [*STARTERS, *SLOWLY])
def test_two_processes_give_the_rows_of_one(starter, undisturbed, tmp_path):
    printed = [finish(process) for process in starter(tmp_path, "--attack=ig", "--steps=100")]
    assert rows(tmp_path) == undisturbed
    assert len(undisturbed) == 8
    assert sum(text.count("rows.jsonl") for text in printed) == 1  # one of them merges and reports
    assert not list(tmp_path.glob("*/parts"))
    assert not list(tmp_path.glob("*/processes"))


@pytest.mark.slow
def test_a_killed_rank_loses_its_task_and_the_same_command_completes_it(undisturbed, tmp_path):
    (process,) = start_by_lightning(tmp_path, "--attack=ig", "--steps=100")
    until_parts(tmp_path, process)
    os.kill(launched_by(process), signal.SIGKILL)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert re.search(
        r"benchmark: tasks without rows: [12] \(photos.*\); a process ended .* same command completes", stderr
    )
    assert "Traceback" not in stderr
    left = len(list(tmp_path.glob("*/parts/*.jsonl")))
    assert 2 <= left < 4  # at least the tasks of the first process
    finish(*start_by_lightning(tmp_path, "--attack=ig", "--steps=100"))
    assert rows(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_dead_rank_on_another_machine_is_not_waited_for_forever(undisturbed, tmp_path):
    first, second = start_by_srun(tmp_path, "--attack=ig", "--steps=100")
    until_files(tmp_path, "*/processes/*", first, 2)
    until_parts(tmp_path, first)
    second.kill()
    second.communicate(timeout=60)
    _, stderr = first.communicate(timeout=300 + Heartbeat.start)  # the second may have died before the first looked
    assert first.returncode == 1
    assert "the same command completes them" in stderr
    for process in start_by_srun(tmp_path, "--attack=ig", "--steps=100"):
        finish(process)
    assert rows(tmp_path) == undisturbed


def test_a_terminated_run_does_not_look_complete(tmp_path):
    process = start(tmp_path, "--attack=ig", "--steps=100", "--devices=1")
    until_parts(tmp_path, process)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def test_the_attack_in_the_readme_runs_from_outside(tmp_path):
    (code,) = re.findall(r"```python\n(# plain_l2\.py\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 40
    (tmp_path / "plain_l2.py").write_text(code)
    printed = finish(start(tmp_path / "out", "--attack=plain_l2.PlainL2", "--steps=30", "--tasks=1", path=tmp_path))
    assert "plain_l2.PlainL2" in printed
    assert len(rows(tmp_path / "out")) == 2
