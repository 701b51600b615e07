import json

import pytest

from leaderboard.rows import read_rows


@pytest.mark.parametrize("line", ["[1, 2]", json.dumps({"psnr": 3}), "null", "\udcff"])
def test_a_foreign_line_is_left_out_and_reported(tmp_path, row, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row()) + "\n" + line + "\n", errors="surrogateescape")
    rows, warnings = read_rows(path)
    assert len(rows) == len(warnings) == 1


def test_rows_written_before_there_were_rounds_are_of_one(tmp_path, row):
    older = row()
    del older["rounds"], older["between"]
    (tmp_path / "rows.jsonl").write_text(json.dumps(older) + "\n")
    rows, warnings = read_rows(tmp_path / "rows.jsonl")
    assert (rows[0]["rounds"], rows[0]["between"], warnings) == (1, 0, [])
    assert rows[0]["psnr"] == older["psnr"]
