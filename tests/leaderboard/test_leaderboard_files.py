import os
import socket

import pytest

from leaderboard.files import write_atomically


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\udcff")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_has_its_name_and_no_two_writers_share_a_partial_file(tmp_path, monkeypatch):
    flushed = []

    def flush(file):
        assert not (tmp_path / "file").exists() or flushed
        (partial,) = tmp_path.glob(".partial-*")
        flushed.append((partial.name, os.fstat(file).st_size))

    monkeypatch.setattr(os, "fsync", flush)
    for _ in range(2):
        write_atomically(tmp_path / "file", "text")
    assert [size for _, size in flushed] == [4, 4]
    assert len({name for name, _ in flushed}) == 2
    assert all(f"-{socket.gethostname()}-{os.getpid()}-" in name for name, _ in flushed)
