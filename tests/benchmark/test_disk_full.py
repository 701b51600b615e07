"""A disk that is full, and files of a finished run that were lost: one line, and the same command goes on."""

import errno
import itertools
import os

import pytest

from benchmark.__main__ import main
from leaderboard.rows import read_rows

COMMAND = ("--attack=ig", "--steps=2", "--tasks=2", "--batch=1", "--victim=lenet", "--defense=none", "--devices=1")


@pytest.fixture
def start(tmp_path, capfd):
    """A function that runs the command and returns its exit code, output and errors."""

    def run(out=tmp_path):
        code = main(["run", *COMMAND, "--wandb=off", f"--out={out}"])
        printed = capfd.readouterr()
        errors = [line for line in printed.err.splitlines() if line.startswith("benchmark: ")]
        assert "Traceback" not in printed.err
        return code, printed.out, errors

    return run


def scores(path):
    (file,) = path.glob("*/rows.jsonl")
    rows, warnings = read_rows(file)
    assert not warnings
    return [(row["task"], row["image"], row["psnr"], row["cost"]) for row in rows]


def test_a_disk_that_is_full_at_any_write_is_one_line_and_the_command_goes_on(start, tmp_path, monkeypatch):
    flush, writes = os.fsync, []

    def full(file):
        writes.append(file)
        if len(writes) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(file)

    assert start(tmp_path / "undisturbed")[0] == 0
    expected = scores(tmp_path / "undisturbed")
    monkeypatch.setattr(os, "fsync", full)
    for at in itertools.count(1):
        writes.clear()
        out = tmp_path / str(at)
        code, _, errors = start(out)
        if len(writes) < at:
            break  # there is no such write
        early = at <= 2  # contents and options are written before anything is attacked
        assert (code, len(errors)) == (2 if early else 1, 1), errors
        assert "No space" in errors[0] or "the disk is full" in errors[0]
        assert not list(out.rglob(".partial-*"))
        assert start(out)[0] == 0
        assert scores(out) == expected
        assert not list(out.glob("*/parts"))
    assert code == 0
    assert at > 10


def test_leftovers_do_not_break_a_run(start, tmp_path):
    assert start()[0] == 0
    before = scores(tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / "parts" / "folder.jsonl").mkdir(parents=True)
    (folder / "parts" / ".t0.jsonl.123").write_text('{"attack": "i')
    (folder / "parts" / "notes.txt").write_text("mine")
    assert start()[0] == 0
    assert scores(tmp_path) == before
    assert (folder / "parts" / "notes.txt").read_text() == "mine"


def test_lost_or_torn_curves_and_pictures_are_left_out_of_the_drawing(start, tmp_path):
    code, printed, errors = start()
    assert (code, errors) == (0, [])
    (folder,) = tmp_path.iterdir()
    for torn in (*folder.glob("truth/*"), next(folder.glob("curves/*"))):
        torn.write_bytes(b"")
    next(folder.glob("reconstructions/*")).unlink()
    code, again, errors = start()
    assert code == 0
    assert again == printed
    assert len(errors) == 4
    assert all("left out of the drawing" in line for line in errors)
