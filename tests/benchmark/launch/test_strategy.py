"""Who starts the processes of a run, and how the first one knows whether the others are alive."""

import time

import pytest
from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

from benchmark.launch.strategy import Heartbeat, is_first, processes, wait_for_first
from victims.errors import InputError, Unfinished

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
SRUN = {"SLURM_NTASKS": "16", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
PER_NODE = {"SLURM_NTASKS_PER_NODE": "8"}


@pytest.fixture
def started_with(monkeypatch):
    def set_variables(variables):
        for name in {**TORCHRUN, **SRUN, **PER_NODE, "NODE_RANK": "", "SLURM_JOB_NAME": ""}:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.mark.parametrize(
    ("variables", "devices", "nodes", "environment", "shape", "first"),
    [
        ({}, None, 1, LightningEnvironment, (3, 1), True),  # no more processes than groups of tasks
        ({}, 2, 1, LightningEnvironment, (2, 1), True),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, 2, 1, LightningEnvironment, (2, 1), False),
        ({"NODE_RANK": ""}, 2, 1, LightningEnvironment, (2, 1), True),  # for which Lightning has no number
        ({"NODE_RANK": "0"}, 4, 2, LightningEnvironment, (4, 2), True),
        ({"NODE_RANK": "1"}, 4, 2, LightningEnvironment, (4, 2), False),
        (TORCHRUN, None, 1, TorchElasticEnvironment, (2, 2), False),
        (TORCHRUN, 2, 2, TorchElasticEnvironment, (2, 2), False),
        (TORCHRUN | {"RANK": "0"}, None, 1, TorchElasticEnvironment, (2, 2), True),
        (SRUN | PER_NODE, None, 1, SLURMEnvironment, (8, 2), True),
        (SRUN | PER_NODE | {"SLURM_PROCID": "9"}, None, 1, SLURMEnvironment, (8, 2), False),
        (SRUN | PER_NODE | TORCHRUN, None, 1, TorchElasticEnvironment, (2, 2), False),  # torchrun inside a job
        (SRUN | {"SLURM_NTASKS": "1"}, None, 1, LightningEnvironment, (3, 1), True),  # a job with one task
        (SRUN | {"SLURM_JOB_NAME": "interactive"}, None, 1, LightningEnvironment, (3, 1), True),
    ],
)
def test_who_starts_how_many(variables, devices, nodes, environment, shape, first, started_with):
    started_with(variables)
    starter, *counts = processes(devices, nodes, most=8, groups=3)
    assert type(starter) is environment
    assert tuple(counts) == shape
    assert is_first() is first
    assert isinstance(starter.node_rank(), int)


@pytest.mark.parametrize(
    ("variables", "devices", "nodes", "message"),
    [
        ({}, 0, 1, "devices is 0"),
        ({}, None, 0, "nodes is 0"),
        ({}, None, 2, "--devices"),
        ({}, 2, 2, "NODE_RANK=0 to 1"),
        ({"NODE_RANK": "2"}, 2, 2, "NODE_RANK=0 to 1"),
        ({"NODE_RANK": "x"}, 2, 2, "NODE_RANK=0 to 1"),
        ({"NODE_RANK": "1"}, None, 1, "NODE_RANK is 1 in the environment, where one machine computes; unset it"),
        (TORCHRUN, 4, 1, "torchrun started 2 processes on each of 2 machines; leave"),
        (TORCHRUN, None, 3, "leave --devices and --nodes out"),
        (TORCHRUN | {"WORLD_SIZE": "5"}, None, 1, "as many on every machine"),
        (SRUN, None, 1, "add --ntasks-per-node"),
    ],
)
def test_processes_that_cannot_be_started_are_refused(variables, devices, nodes, message, started_with):
    started_with(variables)
    with pytest.raises(InputError, match=message):
        processes(devices, nodes, most=8, groups=100)


@pytest.fixture
def heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(Heartbeat, "every", 0.01)
    monkeypatch.setattr(Heartbeat, "quiet", 0.5)
    monkeypatch.setattr(Heartbeat, "start", 1.5)
    return lambda rank, world=3: Heartbeat(tmp_path / "processes", rank, world)


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_living_process_is_waited_for_and_leaves_no_file(heartbeat, tmp_path):
    tasks = ["a", "b"]
    with heartbeat(0) as first, heartbeat(1), heartbeat(2) as third:
        until(lambda: {1, 2} <= first.changed.keys())
        time.sleep(0.8)  # longer than `quiet`
        assert first.alive() == [1, 2]
        third.__exit__(None, None, None)
        until(lambda: first.alive() == [1])
        asked = []

        def missing():
            asked.append(0)
            return tasks if len(asked) < 3 else []

        first.wait_for(missing)
        assert len(asked) == 3
    assert not list(tmp_path.iterdir())


def test_another_process_waits_until_all_tasks_have_rows_or_the_first_one_has_ended(heartbeat, tmp_path):
    asked = []

    def missing():
        asked.append(0)
        return ["a"] if len(asked) < 4 else []

    with heartbeat(0, 2):
        until(lambda: (tmp_path / "processes" / "0").exists())
        wait_for_first(tmp_path / "processes", missing)
        assert len(asked) == 4
    began = time.monotonic()
    wait_for_first(tmp_path / "processes", lambda: ["a"])  # it was never there, or has ended
    assert Heartbeat.quiet <= time.monotonic() - began < Heartbeat.quiet + 5


def test_a_process_that_stops_beating_counts_as_dead(heartbeat):
    with heartbeat(0, 2) as first:
        second = heartbeat(1, 2).__enter__()
        until(lambda: 1 in first.changed)
        second.over.set()  # its file stays, as that of a killed process
        began = time.monotonic()
        with pytest.raises(Unfinished, match=r"^tasks without rows: 2 \(a, b\); a process ended .* same command"):
            first.wait_for(lambda: ["a", "b"])
        assert 0.3 < time.monotonic() - began < 1.5  # less than for a process that never started


def test_a_file_of_an_earlier_run_is_no_heartbeat(heartbeat, tmp_path):
    (tmp_path / "processes").mkdir()
    (tmp_path / "processes" / "1").write_text("123")
    with heartbeat(0, 2) as first:
        assert first.alive() == [1]
        with pytest.raises(Unfinished, match=r"^tasks without rows: 1 \(a\); process 1 never started"):
            first.wait_for(lambda: ["a"])
    assert not list(tmp_path.iterdir())


def test_a_process_that_is_known_to_have_ended_is_not_waited_for(heartbeat):
    began = time.monotonic()
    with heartbeat(0, 2) as first, pytest.raises(Unfinished):
        first.wait_for(lambda: ["a"], ended=[1])
    assert time.monotonic() - began < 1
