"""The record of label methods: a row for each batch and method, and a table of them."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from PIL import Image

from benchmark.__main__ import main
from benchmark.names import known
from benchmark.tasks.batches import class_counts
from benchmark.tracks import label_track, record_labels
from benchmark.tracks.label_track import LabelTrack, read
from leaderboard import record
from leaderboard.options import abouts

SMALL = {"data": "photos", "size": 8, "batches": "unbalanced", "defense": "none"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RECORD", tmp_path / "record")
    about = {"version": 3, "trials": 2, "sizes": [4, 8], "victims": ["lenet", "convnet"], "options": SMALL}
    track = LabelTrack(path=read("labels-unbalanced").path, **about)
    monkeypatch.setattr(label_track, "read", lambda name: track)


def rows_kept():
    return [row for each in record.read_labels("labels-unbalanced") for row in each.rows]


def test_a_row_is_kept_for_each_batch_and_method(capsys):
    assert main(["record", "--track=labels-unbalanced", "--method=zlr,alr"]) == 0
    assert len(re.findall(r"^record   .*labels-unbalanced/(?:alr|zlr).jsonl.gz$", capsys.readouterr().out, re.M)) == 2
    rows = rows_kept()
    assert Counter(row["label_method"] for row in rows) == {"alr": 8, "zlr": 8}  # 2 victims, 2 sizes, 2 trials
    assert {(row["track"], row["track_version"], row["batches"]) for row in rows} == {
        ("labels-unbalanced", 3, "unbalanced")
    }
    for row in rows:
        if row["label_method"] == "alr" and row["victim"] == "convnet":
            assert row["counts"] == row["existence"] == 1
        if row["label_method"] == "zlr":  # finds each class once: half and a quarter of the batch are of one class each
            assert row["counts"] <= len(class_counts("unbalanced", row["batch_size"])) / row["batch_size"]
    assert not list(record.read())  # they are no rows of images
    assert main(["track", "--track=labels-unbalanced"]) == 0
    shown = capsys.readouterr().out
    assert "batches  2 of each size: 4, 8" in shown
    assert re.search(r"^alr +\S+ .*1\.000", shown, re.M)


@pytest.mark.parametrize("command", ["tune", "verify", "run"])
def test_other_commands_say_what_such_a_track_is(command, capsys):
    assert main([command, "--track=labels-unbalanced", "--method=ig"]) == 2
    assert "is a track of label methods" in capsys.readouterr().err


def test_what_is_stale_is_not_shown(monkeypatch, capsys):
    assert main(["record", "--track=labels-unbalanced", "--method=alr"]) == 0
    newer = replace(label_track.read("labels-unbalanced"), version=4)
    monkeypatch.setattr(label_track, "read", lambda name: newer)
    assert main(["track", "--track=labels-unbalanced"]) == 0
    assert "left out alr: its record is of version 3 of the track, now 4" in capsys.readouterr().out


def test_of_all_methods_those_that_read_no_labels_are_left_out_and_one_that_was_named_is_refused(capsys):
    assert main(["record", "--track=labels-unbalanced", "--method=all"]) == 0
    assert "left out idlg: idlg reads the label of a single image" in capsys.readouterr().out
    assert {row["label_method"] for row in rows_kept()} == known("label method").keys() - {"idlg"}
    assert main(["record", "--track=labels-unbalanced", "--method=idlg"]) == 2
    assert "idlg reads the label of a single image" in capsys.readouterr().err
    assert main(["record", "--track=labels-unbalanced", "--method=ig"]) == 2
    assert "unknown label method 'ig'" in capsys.readouterr().err


def test_names_are_checked_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(record_labels, "recovered", lambda *_: pytest.fail("computes"))
    assert main(["record", "--track=labels-unbalanced", "--method=alr,ig"]) == 2


def test_images_that_are_missing_are_counted(tmp_path, monkeypatch, capsys):
    found = read("labels-unbalanced")
    monkeypatch.setattr(label_track, "read", lambda name: found)
    folder = tmp_path / "cifar10" / "test" / "cat"
    folder.mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(folder / "00000.png")
    assert main(["record", "--track=labels-unbalanced", "--method=all", f"--data_dir={tmp_path}"]) == 2
    assert f"640 test images of cifar10, of which {tmp_path} has 1." in capsys.readouterr().err
    assert not rows_kept()


@pytest.mark.parametrize("name", known("label track"))
def test_a_label_track_is_listed_and_its_batches_have_no_more_classes_than_there_are(name):
    assert known("label track")[name].summary
    track = read(name)
    assert track.trials >= 8
    assert max(len(class_counts(track.options["batches"], size)) for size in track.sizes) <= 10
    assert {abouts()[option].role for option in track.options} == {"setting"}
    assert set(track.victims) <= known("victim").keys()
