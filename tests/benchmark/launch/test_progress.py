"""What is said while a progress bar is shown."""

import os
import re
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from tqdm import tqdm

from attacks.base import INNER
from benchmark import __main__ as command
from benchmark.launch.progress import TaskProgress
from benchmark.launch.strategy import Heartbeat
from victims.errors import Notice


def test_a_notice_has_a_line_of_its_own_above_the_bar(monkeypatch, capsys):
    def run(arguments):
        with tqdm(total=2, file=sys.stderr) as bar:
            bar.update(1)
            warnings.warn("this is so.", Notice, stacklevel=2)
        return 0

    monkeypatch.setattr("benchmark.commands.dispatch", run)
    with warnings.catch_warnings():
        assert command.main([]) == 0
    written = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert "benchmark: this is so." in written


def drawn(capsys):
    return capsys.readouterr().err.replace("\r", "\n").splitlines()


def test_one_line_counts_the_tasks_and_steps_of_all_processes(tmp_path, monkeypatch, capsys):
    """Two processes with tasks of 4 * INNER steps, two left for each."""
    monkeypatch.setattr(Heartbeat, "every", 0.01)
    steps, progress = 4 * INNER, {}
    costs = SimpleNamespace(session=SimpleNamespace(costs=[("x", torch.tensor([[0.5]]))]))
    beats = [Heartbeat(tmp_path, rank, 2) for rank in range(2)]
    with beats[0], beats[1]:
        for rank in range(2):
            trainer = SimpleNamespace(global_rank=rank, world_size=2, loggers=[])
            progress[rank] = TaskProgress()
            progress[rank].begin(trainer, beats[rank], groups=4, steps=steps)
            for batch in range(4 + 1 * rank):
                progress[rank].on_train_batch_end(trainer, costs, None, [SimpleNamespace(task="t")], batch % 4)
        while beats[0].steps_of_others.get(1) != 5 * INNER:
            pass
        progress[0].show()
        progress[0].bar.refresh()
    last = drawn(capsys)[-1]
    assert f"{9 * INNER}/{4 * steps} [" in last  # steps
    assert "2/4 tasks, stage x" in last
    assert last.startswith("2 processes: ")
    progress[0].complete()
    progress[0].close()
    progress[1].close()
    last = drawn(capsys)[-1]
    assert f"{4 * steps}/{4 * steps} [" in last
    assert "4/4 tasks" in last


@pytest.mark.slow
def test_a_run_of_two_processes_has_one_line_for_both(tmp_path):
    options = ["--attack=ig", "--victim=lenet", "--batch=1", "--steps=200", "--tasks=4", "--restarts=1", "--devices=2"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "run", *options, "--wandb=off", f"--out={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
    )
    lines = done.stderr.replace("\r", "\n").splitlines()
    counts = [tuple(map(int, found.groups())) for line in lines if (found := re.search(r"(\d+)/4 tasks", line))]
    assert sorted({count for (count,) in counts})[-1] == 4
    shown = [int(found[1]) for line in lines if (found := re.search(r" (\d+)/800 \[", line))]
    assert shown == sorted(shown)
    assert shown[-1] == 800
    assert all(line.startswith("2 processes: ") for line in lines if "/800" in line and "stage" in line)
