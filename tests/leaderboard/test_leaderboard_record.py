"""The record: what ships is what was written, in few bytes, and stands beside runs of its setting."""

import csv
import gzip
import json

import pytest

from leaderboard import record
from leaderboard.__main__ import main
from leaderboard.board import entries
from leaderboard.rows import PROTOCOL, read_rows
from leaderboard.run_folder import RunFolder
from victims.errors import InputError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RECORD", tmp_path / "record")


def rows(scored, attack="ig", track="easy", **changes):
    made = (scored(task=f"t{k}", image=f"i{k}", psnr=20.0 + k, **changes).flat() for k in range(6))
    return [row | {"attack": attack, "track": track} for row in made]


def test_the_same_rows_are_the_same_bytes_and_are_read_back(scored):
    path = record.write("easy", "ig", rows(scored), b"picture")
    first = path.read_bytes()
    assert record.write("easy", "ig", rows(scored), b"picture").read_bytes() == first
    assert [*record.read()] == [record.Kept("easy", "ig", rows(scored), path)]
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
    with pytest.raises(InputError, match=rf"ig.jsonl.gz:7 {said}.*; get the file again, or run make record TRACK="):
        list(record.read())


def test_the_control_is_kept_beside_the_methods(scored):
    control = [row | {"control": "mean_image"} for row in rows(scored)]
    assert record.read_control("easy") is None
    path = record.write_rows(record.RECORD / "easy", record.CONTROL, control)
    assert record.read_control("easy") == record.Kept("easy", "mean_image", control, path)
    assert not list(record.read()), "it is no method"
    record.write_rows(record.RECORD / "easy", record.CONTROL, rows(scored))
    with pytest.raises(InputError, match="has a row of none on the track easy"):
        record.read_control("easy")


def test_reasons_are_kept_until_a_method_can_be_used():
    assert record.refused("easy") == {}
    record.write_refused("easy", {"rgap": "it: has a bias", "spear": "no", "ig": ""})
    record.write_refused("easy", {"spear": "", "lti": "none"})
    assert record.refused("easy") == {"rgap": "it: has a bias", "lti": "none"}


@pytest.mark.parametrize("content", ["", "- rgap", "rgap: 3", "rgap: [", "\x00"])
def test_damaged_reasons_are_refused_in_one_line(content):
    record.write_refused("easy", {"rgap": "it has a bias"})
    (record.RECORD / "easy" / record.REFUSED).write_text(content)
    with pytest.raises(InputError, match=r"refused\.yaml is damaged; get the file again"):
        record.refused("easy")


WHOLE = gzip.compress(b"[]", mtime=0)  # the test's name holds it: the same for every worker


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no gzip", r"is damaged \(Not a gzipped file"),
        (WHOLE[:-4], r"is damaged \(Compressed file ended"),
        (WHOLE[:12] + b"\xff" + WHOLE[13:], r"is damaged \("),
        (gzip.compress(b"", mtime=0), "has no row"),
    ],
)
def test_a_file_that_is_damaged_is_named(content, said):
    for read, folder in ((record.read, "easy"), (record.read_labels, "labels/easy")):
        path = record.write_rows(record.RECORD / folder, "ig", [])
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=rf"{folder}/ig.jsonl.gz {said}.*; get the file again, or run make record TRACK="
        ):
            list(read())


@pytest.mark.parametrize("line", [b'{"psnr": 2', b"{}", b"[]", b"2", b"\xff"])
def test_a_line_that_is_no_row_of_a_label_method_is_refused(line):
    path = record.write_rows(record.RECORD / "labels" / "easy", "alr", [])
    path.write_bytes(gzip.compress(line))
    with pytest.raises(InputError, match=r"alr.jsonl.gz is damaged"):
        list(record.read_labels())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attack": "gi"}, "has a row of gi on the track easy"),
        ({"track": "hard"}, "has a row of ig on the track hard"),
        ({"track": ""}, "has a row of ig on no track"),
        ({"psnr": "high"}, "has a score that is no number"),
    ],
)
def test_a_row_that_is_not_of_its_file_is_refused(scored, change, said):
    first, *others = rows(scored)
    record.write("easy", "ig", [first, *(row | change for row in others)], b"")
    with pytest.raises(InputError, match=f"ig.jsonl.gz {said}"):
        list(record.read())


def test_rows_that_are_missing_or_twice_there_are_refused(scored):
    whole = rows(scored)
    for some, said in (
        (whole[1:], "5 rows, but the track makes 6"),
        ([*whole[1:], whole[1]], "6 rows, 5 of them diff"),
    ):
        record.write("easy", "ig", some, b"")
        (found,) = record.read()
        with pytest.raises(InputError, match=f"ig.jsonl.gz has {said}"):
            found.require(6, "task", "image")


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


def test_rows_of_another_version_of_a_track_stay_apart(scored):
    before, now = (rows(scored, track_version=version) for version in (1, 2))
    record.write("easy", "ig", before, b"")
    assert len(list(record.beside(before))) == len(before)
    assert not list(record.beside(now))
    off_track = [{**row, "track": ""} for row in now]
    assert len(list(record.beside(off_track))) == len(before)
    assert [entry.n for entry in entries([*before, *now])] == [len(before)] * 2


def test_the_board_shows_what_is_recorded_of_the_settings_of_its_runs_alone(scored, tmp_path, capsys):
    record.write("easy", "gi", rows(scored, "gi"), b"")
    record.write("hard", "gias", rows(scored, "gias", "hard", settings={**scored().settings, "batch_size": 9}), b"")
    run = RunFolder(tmp_path / "out" / "mine")
    for row in [scored(task=f"t{k}", image=f"i{k}") for k in range(6)]:
        run.add_rows(row.task, [row])
    assert main([str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "gi " in shown
    assert "gias" not in shown


def test_what_was_run_here_is_not_replaced_by_the_record(scored, tmp_path, capsys):
    """The record has more scores and took longer, of which the board would otherwise choose a row."""
    record.write("easy", "ig", [row | {"seconds": 99.0, "lpips": 0.1} for row in rows(scored)], b"")
    record.write("easy", "gi", rows(scored, "gi"), b"")
    (tmp_path / "out").mkdir()
    own = [row | {"psnr": row["psnr"] + 10} for row in rows(scored)[:5]]
    (tmp_path / "out" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    assert main([str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "leaderboard.csv").open() as file:
        shown = {row["attack"]: (float(row["psnr"]), int(row["n"])) for row in csv.DictReader(file)}
    assert shown == {"ig": (32, 5), "gi": (22.5, 6)}


def test_the_control_and_records_of_older_code_of_a_defense_stand_beside_runs(scored):
    """Where results change with the code, the version of the track or of the protocol is raised."""
    record.write("easy", "gi", [row | {"defense_digest": "then"} for row in rows(scored, "gi")], b"")
    record.write_rows(record.RECORD / "easy", record.CONTROL, [row | {"control": "mean_image"} for row in rows(scored)])
    run = [row | {"defense_digest": "now"} for row in rows(scored)]
    shown = [*record.beside(run)]
    assert {(row["attack"], row["control"], row["defense_digest"]) for row, _ in shown} == {
        ("gi", "none", "now"),
        ("ig", "mean_image", "now"),
    }
    assert {place.name for _, place in shown} == {"gi", "mean_image"}
    assert not [*record.beside([row | {"defense": "noise:0.1"} for row in run])]
