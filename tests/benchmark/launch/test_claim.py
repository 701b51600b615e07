"""Which folder a run goes into: starts at the same time, and the processes of one start."""

import threading
import warnings
from contextlib import ExitStack

import pytest

from benchmark.launch import claim as module
from benchmark.launch.claim import claim, follow
from benchmark.launch.lock import Busy
from benchmark.launch.strategy import STARTER, Heartbeat
from leaderboard.run_folder import RunFolder, latest, version
from victims.errors import InputError

OLD, NEW = ({"attack": {"ig.py": digest}, "tasks": {"task 0": "x"}} for digest in ("old", "new"))


@pytest.fixture
def base(tmp_path):
    """A run with rows of the old contents."""
    with ExitStack() as held:
        folder = claim(tmp_path / "run", OLD, held)
        folder.write_config("attack: ig")
        folder.rows_file.touch()
    return tmp_path / "run"


def claimed(base, contents):
    """The folder, and what is said of it."""
    with warnings.catch_warnings(record=True) as said, ExitStack() as held:
        warnings.simplefilter("always")
        return claim(base, contents, held).path.name, [str(line.message) for line in said]


def test_other_contents_go_into_the_next_folder_and_the_old_ones_find_theirs(base):
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    line = f"ig.py changed since the rows in {base}; they stay, and this run goes into {base}-2."
    assert claimed(base, NEW) == ("run-2", [line])
    version(base, 2).rows_file.touch()
    version(base, 2).write_config("attack: ig")
    assert claimed(base, NEW) == ("run-2", [])
    assert claimed(base, OLD) == ("run", [])
    assert before == {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}


def test_more_tasks_extend_a_run_unless_an_earlier_one_changed(base):
    longer = {**OLD, "tasks": {"task 0": "x", "task 1": "y"}}
    assert claimed(base, longer) == ("run", [])
    assert claimed(base, OLD) == ("run", [])
    assert RunFolder(base).read_contents() == longer
    assert claimed(base, {**OLD, "tasks": {"task 0": "x", "task 1": "z"}})[0] == "run-2"


def test_a_folder_without_rows_takes_other_contents(base):
    assert claimed(base, NEW)[0] == "run-2"
    name, (line,) = claimed(base, {**NEW, "attack": {"ig.py": "newer"}})
    assert name == "run-2"
    assert line.startswith(f"ig.py changed since the rows in {base};")
    assert claimed(base, OLD) == ("run", [])


@pytest.mark.parametrize("text", [None, "", "3", "[1]", '{"attack": 3}', "[" * 9000, '{"attack": {"a": {"b": {}}}}'])
def test_rows_of_unknown_contents_stay_alone(base, text):
    (base / "contents.json").unlink()
    if text is not None:
        (base / "contents.json").write_text(text)
    name, (line,) = claimed(base, OLD)
    assert name == "run-2"
    assert line.startswith(f"it is not known what went into the rows in {base}; they stay,")


def test_the_folder_of_the_last_start_is_the_latest(base):
    assert latest(base.with_name("other")) is None
    for number in (2, 10):
        version(base, number).write_config("attack: ig")
        version(base, number).rows_file.touch()
    version(base, 11).write_config("attack: ig")  # stopped before its first row
    assert latest(base).path.name == "run-10"
    RunFolder(base).write_config("attack: ig")
    assert latest(base).path.name == "run"


@pytest.mark.filterwarnings("ignore:.* changed since")
@pytest.mark.parametrize("names", [["new"] * 8, ["new", "newer"] * 4])
def test_starts_at_once_after_a_change_agree_on_their_folders(base, names):
    together, printed = threading.Barrier(len(names)), []

    def start(name):
        with ExitStack() as held:
            together.wait()
            try:
                folder = claim(base, {**NEW, "attack": {"ig.py": name}}, held).path.name
            except Busy:
                folder = "busy"
            printed.append((name, folder))
            together.wait()  # it is at work until all have started

    threads = [threading.Thread(target=start, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    at_work = [(name, folder) for name, folder in printed if folder != "busy"]
    assert sorted(name for name, _ in at_work) == sorted(set(names))
    assert sorted(folder for _, folder in at_work) == [f"run-{2 + place}" for place in range(len(set(names)))]
    assert len(printed) == len(names)


def test_a_start_of_other_contents_does_not_wait_for_the_one_at_work(base):
    with ExitStack() as held:
        claim(base, OLD, held)
        assert claimed(base, NEW)[0] == "run-2"
        with pytest.raises(Busy, match="is being worked on"):
            claimed(base, OLD)


def test_the_other_processes_wait_for_the_first_and_follow_it(base, monkeypatch):
    monkeypatch.setattr(module, "LOOK", 0.01)
    found = []
    thread = threading.Thread(target=lambda: found.append(follow(base, NEW).path.name))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    claimed(base, NEW)
    thread.join(10)
    assert found == ["run-2"]
    assert follow(base, OLD).path.name == "run"


def test_a_process_with_other_contents_than_the_first_is_refused(base, monkeypatch):
    monkeypatch.setenv(STARTER, "1")  # launched by the first, which has chosen before
    with pytest.raises(InputError, match="let nothing that goes into it be random or change"):
        follow(base, NEW)
    monkeypatch.delenv(STARTER)
    monkeypatch.setattr(Heartbeat, "start", 0.0)
    with pytest.raises(InputError, match="has no folder"):
        follow(base, NEW)
