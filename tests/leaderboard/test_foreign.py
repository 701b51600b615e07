"""What others put into a folder of results is named and left out; the board of the rest is there."""

import json
import os
import struct
import zlib

import pytest

from leaderboard.__main__ import main
from leaderboard.rows import PROTOCOL, read_rows

DEEP = "[" * 50_000 + "]" * 50_000


@pytest.fixture
def board(tmp_path, row, capsys):
    """A whole run beside a foreign one; the function makes the board and returns the warnings."""
    for name in ("whole", "foreign"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text(json.dumps(row(attack=name, batch_size=1)) + "\n")

    def make():
        assert main([str(tmp_path)]) == 0
        printed = capsys.readouterr()
        assert "whole" in printed.out
        assert (tmp_path / "leaderboard.html").is_file()
        return printed.err.splitlines()

    return make


WRONG = {"attack": 3, "seed": "0", "size": "32", "task": ["t"], "image": {}, "label": None, "adapt": "yes", "lr": "a",
         "options": [], "protocol": "3", "cost": "low", "higher_is_better": {"psnr": "yes"},
         "ranges": {"psnr": [0, "x"]}, "axis": {"x": "y"}, "status": 1, "code": None, "label_method": 3}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
def test_a_value_of_the_wrong_type_costs_its_row(board, tmp_path, row, key):
    file = tmp_path / "foreign" / "rows.jsonl"
    file.write_text(json.dumps(row(**{key: WRONG[key]})) + "\n")
    (warning,) = board()
    assert "foreign/rows.jsonl:1 is not a row of this version" in warning


@pytest.mark.parametrize(
    "value", ["9" * 5000, "9" * 4000, DEEP, "[[[[[[[[[[1]]]]]]]]]]", '"\\ud800"', '{"\\udfff": 1}']
)
@pytest.mark.parametrize("key", ["task", "options", "psnr", "else"])
def test_json_that_no_row_can_hold_costs_its_row(board, tmp_path, row, key, value):
    line = json.dumps(row(**{key: "HERE"})).replace('"HERE"', value)
    (tmp_path / "foreign" / "rows.jsonl").write_text(line + "\n")
    (warning,) = board()
    assert "foreign/rows.jsonl:1 is not a row of this version" in warning


ALIASES = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))])


@pytest.mark.parametrize(
    "text", [f"attack: ig\n{ALIASES}\nset: *a39", f"attack: {DEEP[:20000]}", "attack: ig\nseed: " + "9" * 5000,
             "attack: ig\nseed: 0x" + "f" * 5000, 'attack: "\\ud800"', "attack: ig\nset: {a: {b: {c: d}}}", "3", "\0"]
)  # fmt: skip
def test_options_that_are_none_are_named(board, tmp_path, text):
    (tmp_path / "foreign" / "config.yaml").write_text(text)
    (warning,) = board()
    assert "foreign/config.yaml does not hold the options of a run" in warning


@pytest.mark.parametrize("text", ["set: 3", "set: [1, 2]", "set: {a: 1}", "seed: [a]", "tasks: yes", "bn: 3", "lr: {}"])
def test_odd_options_do_no_harm(board, tmp_path, text):
    (tmp_path / "foreign" / "config.yaml").write_text(f"attack: ig\n{text}\n")
    assert board() == []


def test_a_pipe_is_not_waited_for(board, tmp_path):
    for name in ("rows.jsonl", "config.yaml"):
        (tmp_path / "foreign" / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / "foreign" / name)
    rows, config = board()
    assert "rows.jsonl cannot be read (not a regular file)" in rows
    assert "config.yaml does not hold" in config


def png(side):
    """A picture that says it has `side` x `side` pixels."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0"), b"IEND"]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize("content", [png(60_000), png(9_000), b"GIF89a", b""])
def test_a_picture_that_is_none_is_left_out(board, tmp_path, content):
    picture = tmp_path / "foreign" / "truth" / "a.png"
    picture.parent.mkdir()
    picture.write_bytes(content)
    board()
    assert "foreign/truth/a.png is not a picture" in (tmp_path / "leaderboard.html").read_text()


def test_a_link_out_of_the_folder_is_not_followed(board, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "t0.csv").write_text("step,stage,cost\n0,secret,1\n")
    (tmp_path / "foreign" / "curves").symlink_to(tmp_path / "elsewhere")
    assert board() == []
    assert "secret" not in (tmp_path / "leaderboard.html").read_text()


@pytest.mark.parametrize(("protocol", "age"), [(PROTOCOL - 1, "older"), (PROTOCOL + 1, "newer")])
def test_a_newer_protocol_is_not_called_older(board, tmp_path, row, protocol, age):
    (tmp_path / "foreign" / "rows.jsonl").write_text(json.dumps(row(protocol=protocol)) + "\n")
    board()
    assert f"* {age} protocol" in (tmp_path / "leaderboard.md").read_text().replace("\\", "")
    assert f"defense none, {age} protocol" in (tmp_path / "leaderboard.html").read_text()


def test_rows_of_the_suite_pass(scored, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(scored().flat()) + "\n")
    assert read_rows(tmp_path / "rows.jsonl")[1] == []
