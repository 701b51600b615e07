import base64
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmark.__main__ import main as benchmark
from leaderboard import record
from leaderboard.gather import gather
from leaderboard.page import IN_ALL, PER_ENTRY, SIDE, page, with_pictures
from leaderboard.results import results
from leaderboard.strip import SHOWN
from victims.data.photos import Photos


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])


def decoded(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


@pytest.fixture
def run(tmp_path, row):
    """The results of a run with `count` pictures of a given side."""

    def make(count, side=8):
        folder = tmp_path / "run"
        (folder / "reconstructions").mkdir(parents=True)
        rows = [row(image=f"{i:03}", task=f"t{i}") for i in range(count)]
        for i, one in enumerate(rows):
            picture = Image.new("RGB", (side, side), (i, 2 * i, 255 - i))
            picture.save(folder / "reconstructions" / f"{one['task']}--{one['image']}.png")
        return results(rows, [folder] * count)

    return make


def test_the_page_holds_the_results_and_needs_nothing_else(run):
    found = run(2)
    text = page(found)
    shown = data_of(text)
    assert shown["entries"][0]["scores"] == found["entries"][0]["scores"]
    assert decoded(shown["pictures"][shown["entries"][0]["rows"][1]["reconstruction"]]).getpixel((0, 0)) == (1, 2, 254)
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)
    assert "default-src 'none'" in text
    assert set(re.findall(r"https?://[^\"' ]+", text)) <= {"http://www.w3.org/2000/svg"}  # a name, nothing to load


def sheet(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,"))))


def near(picture, place, color):
    """Whether a pixel has a color, but for what WebP loses."""
    return all(abs(a - b) < 12 for a, b in zip(picture.getpixel(place), color, strict=True))


def test_an_entry_shows_its_first_images_on_a_strip_the_truth_above(run, tmp_path):
    found = run(SHOWN + 2, side=16)
    (tmp_path / "run" / "truth").mkdir()
    for entry in found["entries"]:
        for place, one in enumerate(entry["rows"]):
            if place != 1:  # this one was not kept
                one["truth"] = str(tmp_path / "run" / "truth" / f"{place}.png")
                Image.new("RGB", (16, 16), (0, 20 * place, 0)).save(one["truth"])
    (entry,) = data_of(page(found))["entries"]
    shown = sheet(entry["strip"])
    assert shown.size == (16 * SHOWN, 32)
    for place in range(SHOWN):
        assert near(shown, (16 * place + 8, 8), (0, 20 * place, 0) if place != 1 else (128, 128, 128))
        assert near(shown, (16 * place + 8, 24), (place, 2 * place, 255 - place))


def test_an_entry_of_the_record_has_the_picture_of_the_record(run, monkeypatch, tmp_path, row):
    monkeypatch.setattr(record, "RECORD", tmp_path)
    (tmp_path / "mine").mkdir()
    Image.new("RGB", (32, 8), "red").save(tmp_path / "mine" / "ig.webp", lossless=True)
    rows = [row(), row(attack="gias")]
    shown = with_pictures(results(rows, [tmp_path / "mine" / "ig", tmp_path / "mine" / "gias"]))["entries"]
    strips = {entry["attack"]: entry["strip"] for entry in shown}
    assert sheet(strips["ig"]).size == (32, 8)
    assert strips["gias"] is None
    assert with_pictures(run(1))["entries"][0]["strip"] is not None  # one with pictures of its own shows these


def test_what_names_a_part_of_the_page_is_there(run):
    text = page(run(1))
    labels = re.findall(r'aria-labelledby="([^"]+)"', text)
    assert len(labels) == 5
    for label in labels:
        assert re.search(rf'\bid(?:="|: "){label}"', text), label


def test_no_row_can_end_the_script(row):
    bad = "</script><script>alert(1)</script><!-- <script>"
    text = page(results([row(attack=bad)], [Path("run")]) | {"warnings": [bad]})
    assert data_of(text)["entries"][0]["attack"] == bad
    assert bad not in text


def test_no_more_pictures_than_fit(run):
    shown = with_pictures(run(PER_ENTRY + 3))
    keys = [row["reconstruction"] for row in shown["entries"][0]["rows"]]
    assert all(keys[:PER_ENTRY])
    assert keys[PER_ENTRY:] == [None] * 3
    assert len(shown["entries"][0]["rows"]) == PER_ENTRY + 3


def test_many_entries_share_the_room(run):
    found = run(10)
    many = found | {"entries": found["entries"] * (IN_ALL // 4)}
    assert sum(row["reconstruction"] is not None for row in with_pictures(many)["entries"][0]["rows"]) == 4


def test_large_pictures_become_small_and_small_ones_stay(run):
    (large,) = with_pictures(run(1, side=256))["pictures"].values()
    assert decoded(large).size == (SIDE, SIDE)


def test_a_torn_picture_is_reported_and_left_out(run, tmp_path):
    found = run(2)
    torn = tmp_path / "run" / "reconstructions" / "t0--000.png"
    torn.write_bytes(torn.read_bytes()[:40])
    shown = with_pictures(found)
    assert [bool(row["reconstruction"]) for row in shown["entries"][0]["rows"]] == [False, True]
    assert shown["warnings"] == ["run/reconstructions/t0--000.png is not a picture."]


def test_the_command_writes_the_same_bytes_wherever_the_rows_lie(tmp_path, row):
    for name in ("a", "b"):
        out = tmp_path / name
        (out / "run").mkdir(parents=True)
        (out / "run" / "rows.jsonl").write_text(json.dumps(row()) + "\n" + json.dumps(row(task="t1"))[:-9] + "\n")
        done = subprocess.run([sys.executable, "-m", "leaderboard", out], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0
        assert "not a whole row" in done.stderr
    first, second = ((tmp_path / name / "leaderboard.html").read_bytes() for name in ("a", "b"))
    assert first == second
    assert "run/rows.jsonl:2 is not a whole row" in data_of(first.decode())["warnings"][0]


def test_a_real_run_shows_truth_beside_reconstruction(tmp_path):
    options = ["--attack=ig", "--victim=lenet", "--batch=2", "--tasks=1", "--steps=2", "--restarts=1"]
    assert benchmark(["run", *options, "--devices=1", "--wandb=off", f"--out={tmp_path}"]) == 0
    rows, folders, warnings = gather(tmp_path)
    assert warnings == []
    shown = data_of(page(results(rows, folders)))
    data = Photos(split="test", size=32)
    for one in shown["entries"][0]["rows"]:
        truth = data[data.ids.index(one["image"])][0]
        pixels = (truth * 255).round().byte().permute(1, 2, 0).numpy()
        assert (pixels == decoded(shown["pictures"][one["truth"]])).all()
        assert one["reconstruction"] in shown["pictures"]
    assert shown["entries"][0]["curve"]["length"] == 2
    shutil.rmtree(folders[0] / "truth")  # older runs did not keep it
    assert all(one["truth"] is None for one in results(rows, folders)["entries"][0]["rows"])
