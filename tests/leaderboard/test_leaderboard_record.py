"""The record: what ships is what was written, in few bytes, and stands beside runs of its setting."""

import gzip
import json

import pytest

from leaderboard import record
from leaderboard.__main__ import main
from leaderboard.rows import PROTOCOL, read_rows
from leaderboard.run_folder import RunFolder
from victims.errors import InputError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RECORD", tmp_path / "record")


def rows(scored, **changes):
    return [scored(task=f"t{k}", image=f"i{k}", psnr=20.0 + k, **changes).flat() for k in range(6)]


def test_the_same_rows_are_the_same_bytes_and_are_read_back(scored):
    path = record.write("easy", "ig", rows(scored), b"picture")
    first = path.read_bytes()
    assert record.write("easy", "ig", rows(scored), b"picture").read_bytes() == first
    assert [*record.read()] == [record.Kept("easy", "ig", rows(scored))]
    assert path.with_name("ig.webp").read_bytes() == b"picture"
    assert list(record.read("hard")) == list(record.read(method="gi")) == []


def test_a_picture_that_is_too_large_is_not_written(scored):
    with pytest.raises(ValueError, match="40001 bytes"):
        record.write("easy", "ig", rows(scored), b"x" * 40_001)
    assert not list(record.read())


@pytest.mark.parametrize(("line", "said"), [(b'{"psnr": 2', "is not a whole row"), (b"{}", "is not a row of this")])
def test_a_line_that_is_no_row_is_said_with_what_to_do(scored, line, said):
    path = record.write("easy", "ig", rows(scored), b"")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + line))
    with pytest.raises(InputError, match=rf"ig.jsonl.gz:7 {said}.*; get the file again, or run make record"):
        list(record.read())


def test_a_record_is_stale_under_another_protocol_or_version_of_its_track(scored):
    record.write("easy", "ig", rows(scored, track_version=2), b"")
    (found,) = record.read()
    assert found.stale(2) == ""
    assert found.stale(3) == "of version 2 of the track, now 3"
    assert record.stale(rows(scored, protocol=PROTOCOL - 1), 1) == f"of protocol {PROTOCOL - 1}, now {PROTOCOL}"


def test_rows_that_say_no_version_are_of_the_first(scored, tmp_path):
    (old, *_) = rows(scored)
    old.pop("track_version")
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(old))
    assert record.stale(read_rows(file)[0], 1) == ""


def test_the_board_shows_what_is_recorded_of_the_settings_of_its_runs_alone(scored, tmp_path, capsys):
    def named(attack, **changes):
        row = scored()
        return rows(scored, settings={**row.settings, "attack": attack, **changes})

    record.write("easy", "gi", named("gi"), b"")
    record.write("hard", "gias", named("gias", batch_size=9), b"")
    run = RunFolder(tmp_path / "out" / "mine")
    for row in [scored(task=f"t{k}", image=f"i{k}") for k in range(6)]:
        run.add_rows(row.task, [row])
    assert main([str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "gi " in shown
    assert "gias" not in shown
