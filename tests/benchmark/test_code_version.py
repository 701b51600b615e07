"""Rows say which code made them: what is computed and kept beside the code does not count as a change of it."""

import subprocess

import pytest

from benchmark import code_version as module
from benchmark.__main__ import main
from benchmark.code_version import changed_code, code_version


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROOT", tmp_path)
    write(tmp_path, "attacks/ig.py")
    commit(tmp_path)
    return tmp_path


def commit(root):
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "One."],
    ):
        subprocess.run(["git", "-C", root, *words], check=True)


def write(root, name, text=""):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_what_is_computed_is_no_change_of_the_code(checkout):
    computed = ("benchmark/tracks/tuned/cifar10-b1/ig.yaml", "leaderboard/record/cifar10-b1/ig.jsonl.gz")
    for name in (*computed, "docs/board/README.md", "README.md"):
        write(checkout, name)
    assert not changed_code()
    commit(checkout)
    for name in (*computed, "docs/board/README.md", "README.md"):
        write(checkout, name, "other")
    assert not changed_code()
    assert not code_version().endswith("dirty")


@pytest.mark.parametrize("name", ["attacks/ig.py", "attacks/mine.py", "benchmark/tracks/cifar10-b1.yaml"])
def test_a_change_of_the_code_is_said_and_not_recorded(checkout, name, capsys):
    write(checkout, name, "other")
    assert changed_code() == [name]
    assert code_version().endswith("-dirty")
    assert main(["record", "--track=photos-default", "--method=ig"]) == 2
    assert capsys.readouterr().err.endswith(f"({name}); commit them, for a record names its code.\n")


def test_where_there_is_no_checkout_the_version_alone_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert "+" not in code_version()


def test_a_checkout_that_git_cannot_read_is_not_recorded(checkout, monkeypatch, capsys):
    """As in a container without git; rows then say the version alone."""
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    assert "+" not in code_version()
    assert main(["record", "--track=photos-default", "--method=ig"]) == 2
    assert "install git, or let it read the folder" in capsys.readouterr().err
