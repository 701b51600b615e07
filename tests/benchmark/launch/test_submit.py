"""Cells as jobs: through submitit's own executors, SLURM's without its commands."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import submitit

from benchmark.__main__ import main
from benchmark.config import Config
from benchmark.launch import submit as module
from benchmark.launch.cluster import Cluster, split_arguments
from benchmark.launch.submit import Job, distinct

ROOT = Path(__file__).resolve().parents[3]
TINY = ["--victim=lenet", "--batch=1", "--tasks=1", "--size=16", "--steps=2", "--restarts=1", "--devices=1"]
TWO = ["--attack=ig", "--defense=none,sparsification:0.5"]


def rows(out):
    """All rows below a folder, without what is measured anew in every run."""
    lines = [json.loads(line) for file in sorted(out.glob("*/rows.jsonl")) for line in file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "memory")} for line in lines]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("GIBENCH_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)


@pytest.fixture
def commands(monkeypatch):
    """Of jobs, which are run in this process."""
    seen = []

    def run(command, check):
        assert command[:3] == [sys.executable, "-m", "benchmark"]
        seen.append(command[3:])
        return subprocess.CompletedProcess(command, main(command[3:]))

    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=run))
    return seen


@pytest.mark.slow
def test_jobs_of_the_local_executor_give_the_rows_of_plain_runs(tmp_path, capsys):
    for defense in ("none", "sparsification:0.5"):
        given = ["run", *TINY, "--attack=ig", f"--defense={defense}", "--wandb=off", f"--out={tmp_path / 'plain'}"]
        assert main(given) == 0
    options = ["--cluster", "local", "--at-once=2", *TINY, *TWO, "--wandb=off", f"--out={tmp_path / 'jobs'}"]
    assert main(["submit", *options]) == 0
    assert len(rows(tmp_path / "jobs")) == 2
    assert rows(tmp_path / "jobs") == rows(tmp_path / "plain")
    printed = capsys.readouterr().out
    assert f"jobs     2, logs in {tmp_path / 'jobs' / 'jobs'}" in printed
    assert "PSNR by attack and defense" in printed


def test_a_job_on_this_machine_takes_no_more_cores_than_it_is_given(tmp_path, commands, monkeypatch):
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    tiny = [option for option in TINY if not option.startswith("--devices")]
    given = [*tiny, "--attack=ig", "--wandb=off", f"--out={tmp_path}"]
    for options in (["--cpus=2"], ["--cpus=3", "--devices=1"]):
        assert main(["submit", "--cluster=debug", *options, *given]) == 0
    assert [[option for option in each if "devices" in option] for each in commands] == [
        ["--devices=2"],
        ["--devices=1"],
    ]


def test_a_job_that_sees_gpus_has_no_limit_of_cores(tmp_path, monkeypatch):
    given, seen = [option for option in TINY if not option.startswith("--devices")], []
    monkeypatch.setattr(Job, "__call__", lambda job, arguments: seen.append(arguments) or 0)
    monkeypatch.setattr(module, "report", lambda configs: None)
    for gpus in (False, True):
        monkeypatch.setattr(module.torch.cuda, "is_available", lambda gpus=gpus: gpus)
        assert main(["submit", "--cluster=debug", *given, "--attack=ig", f"--out={tmp_path}"]) == 0
    assert [any("devices" in option for option in each) for each in seen] == [True, False]


def test_a_refused_job_is_named_and_the_rest_shown(tmp_path, capsys, commands):
    options = ["--cluster=debug", *TINY, "--attack=ig,rgap", "--defense=none", "--wandb=off", f"--out={tmp_path}"]
    assert main(["submit", *options]) == 1
    printed = capsys.readouterr()
    assert len(commands) == 2
    assert "no result from run" in printed.err.splitlines()[-1]
    assert "--attack=rgap" in printed.err.splitlines()[-1]
    assert "exit code 2" in printed.err.splitlines()[-1]
    assert "ig " in printed.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cluster=slurm"], "no srun on this machine"),
        (["--cluster=local", "--partition=gpu"], "local has no partitions"),
        (["--cluster=local", "--gpus=1", "--at-once=2"], "leave --at-once or --gpus out"),
        (["--cluster=debug", "--cpus=0"], "cpus is 0; give 1 or more"),
        (["--cluster=debug", "--at-once=0"], "at_once is 0"),
        (["--cluster=debug", "--nodes=2"], "leave --nodes out"),
        (["--cluster=debug", "--attack=ig,gais"], "did you mean 'gias'"),
        (["--cluster=debug", "--defense=sparsification:1"], "rate"),
        (["--cluster=moon"], "cluster"),
        (["--cluster=debug", "--steps=many"], "steps takes int"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_job(options, message, tmp_path, capsys, commands, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert main(["submit", *TINY, *options, f"--out={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert commands == []


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path, capsys, commands):
    (tmp_path / "file").write_text("")
    assert main(["submit", "--cluster=debug", *TINY, f"--out={tmp_path / 'file'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot write to" in line
    assert commands == []


class Idle:
    """In place of submitit's, for what a test adds."""

    def __init__(self, folder, cluster):
        pass

    def update_parameters(self, **parameters):
        pass


def test_what_slurm_refuses_is_one_line(tmp_path, capsys, monkeypatch):
    class Executor(Idle):
        def map_array(self, job, arguments):
            raise submitit.core.utils.FailedJobError("sbatch failed\ninvalid partition specified: typo")

    monkeypatch.setattr(module.submitit, "AutoExecutor", Executor)
    assert main(["submit", "--partition=typo", *TWO, f"--out={tmp_path}"]) == 2
    assert "SLURM takes no such jobs: invalid partition specified: typo" in capsys.readouterr().err


def test_jobs_do_not_outlive_the_process_that_waits_for_them(tmp_path, monkeypatch):
    cancelled = []

    class Executor(Idle):
        def submit(self, job, arguments):
            return SimpleNamespace(done=lambda: False, cancel=lambda: cancelled.append(arguments))

    def stopped(_):
        raise TimeoutError  # in place of a signal

    monkeypatch.setattr(module.submitit, "AutoExecutor", Executor)
    monkeypatch.setattr(module.time, "sleep", stopped)
    with pytest.raises(TimeoutError):
        main(["submit", "--cluster=local", *TWO, f"--out={tmp_path}"])
    assert len(cancelled) == 1


def test_slurm_gets_one_array(tmp_path, capsys, monkeypatch):
    asked = {}

    class Executor:
        def __init__(self, folder, cluster):
            asked.update(folder=folder, cluster=cluster)

        def update_parameters(self, **parameters):
            asked.update(parameters)

        def map_array(self, job, arguments):
            asked.update(job=job, arguments=arguments)
            return [SimpleNamespace(job_id=f"77_{place}") for place, _ in enumerate(arguments)]

    monkeypatch.setattr(module.submitit, "AutoExecutor", Executor)
    options = ["--partition=gpu", "--gpus", "8", "--minutes=90", "--at_once=4", *TWO, f"--out={tmp_path}"]
    assert main(["submit", *options]) == 0
    assert asked["arguments"] == [
        ["run", "--attack=ig", f"--defense={defense}", f"--out={tmp_path}"]
        for defense in ("none", "sparsification:0.5")
    ]
    assert (asked["slurm_partition"], asked["gpus_per_node"], asked["timeout_min"]) == ("gpu", 8, 90)
    assert (asked["slurm_array_parallelism"], asked["cpus_per_task"]) == (4, 1)
    assert f"array    77; when it is done: make leaderboard OUT={tmp_path}" in capsys.readouterr().out


def test_parameters_are_submitits(tmp_path):
    where = Cluster(cluster="local", gpus=2, cpus=3, minutes=5)
    assert where.executor(tmp_path)._executor.parameters["timeout_min"] == 5  # it refuses names that it does not know


def test_a_job_that_ran_out_of_time_is_submitted_as_it_was():
    again = Job().checkpoint(["run", "--attack=ig"])
    assert isinstance(again.function, Job)
    assert again.args == (["run", "--attack=ig"],)


def test_cells_that_mean_the_same_are_one_job():
    cells = [
        (["run", defense, adapt], Config(attack="ig", defense=defense, adapt=adapt == "yes"))
        for defense in ("none", "noise:0.1")
        for adapt in ("yes", "no")
    ]
    assert [arguments for arguments, _ in distinct(cells)] == [
        ["run", "none", "yes"],
        ["run", "noise:0.1", "yes"],
        ["run", "noise:0.1", "no"],
    ]


def test_options_are_split_arguments():
    mine, others = split_arguments(["--gpus", "8", "--attack", "ig", "--cpus=2", "--set+=tv=1"])
    assert mine == ["--gpus=8", "--cpus=2"]
    assert others == ["--attack", "ig", "--set+=tv=1"]


def test_make_hands_options_on():
    made = subprocess.run(
        ["make", "-n", "-o", ".venv/.ready", "submit", "METHOD=ig", "CLUSTER=slurm", "GPUS=8", "NODES=1", "MINUTES=9"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert all(option in made for option in ("--method='ig'", "--cluster='slurm'", "--gpus='8'", "--minutes='9'"))
