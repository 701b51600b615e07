"""What a track needs is named, all of it and before anything is computed, and shown with the methods that take part."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from benchmark.__main__ import main
from benchmark.tracks.missing import missing
from benchmark.tracks.track import DEFAULT, TRACKS, Track, read
from tests.benchmark.tracks.conftest import GOOD
from victims.errors import InputError

GPU = [path.stem for path in TRACKS.glob("*.yaml") if read(path.stem).tier == "gpu"]


@pytest.fixture(autouse=True)
def _without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def images(root, count):
    """Of the test split of CIFAR-10."""
    folder = root / "cifar10" / "test" / "cat"
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / f"{number:05d}.png")


def test_the_settings_of_papers_are_tracks_for_a_gpu():
    assert sorted(GPU) == ["cifar10-b64", "ffhq64-b1", "imagenet64-b1-resnet18", "imagenet64-b4-sparse"]


@pytest.mark.parametrize("command", ["record", "tune"])
@pytest.mark.parametrize(
    ("track", "count", "weights"),
    [
        ("imagenet64-b1-resnet18", 50, "biggan-deep-256-pytorch_model.bin, from https://s3"),
        ("ffhq64-b1", 24, "stylegan2-ffhq-config-f.pt, from https://github.com/NVlabs"),
        ("imagenet64-b4-sparse", 40, "biggan-deep-256-pytorch_model.bin, from https://s3"),
    ],
)
def test_all_that_is_missing_is_said_at_once(tmp_path, capsys, command, track, count, weights):
    out, folders = tmp_path / "out", [f"--data_dir={tmp_path}", f"--weights={tmp_path}"]
    assert main([command, f"--track={track}", "--method=gias", f"--out={out}", *folders]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    split, count = ("test", count) if command == "record" else ("tune", 8 if "b4" in track else 2)
    assert f"{count} {split} images of {track[:4].replace('imag', 'imagenet')}, of which {tmp_path} has 0" in line
    assert weights in line
    assert line.endswith("a GPU, which PyTorch does not find.")
    assert not out.exists()


def test_what_no_method_needs_is_not_missing(tmp_path):
    options = {"data_dir": tmp_path, "weights_dir": tmp_path}
    track = read("imagenet64-b1-resnet18")
    assert any("biggan" in phrase for phrase in missing(track, {"generator"}, options))
    assert not any("biggan" in phrase for phrase in missing(track, {"denoiser"}, options))


def test_images_are_counted(tmp_path):
    images(tmp_path, 23)
    track = read("cifar10-b1")
    assert missing(track, (), {"data_dir": tmp_path}) == [f"24 test images of cifar10, of which {tmp_path} has 23"]
    Image.new("RGB", (32, 32)).save(tmp_path / "cifar10/test/cat/00023.png")
    assert missing(track, (), {"data_dir": tmp_path}) == []


def test_weights_of_the_victim_are_missing_too(tmp_path):
    images(tmp_path, 24)
    (phrase,) = missing(read("cifar10-trained"), (), {"data_dir": tmp_path, "weights_dir": tmp_path})
    assert phrase.startswith("no victim weights 'cifar10/resnet20-12fca82f.th'")


def test_what_is_damaged_on_another_track_stops_nothing_here(tmp_path, monkeypatch):
    images(tmp_path, 24)
    broken, tuned = tmp_path / "gias.yaml", Track.tuned
    broken.write_text("[")
    monkeypatch.setattr(Track, "tuned", lambda of, method: broken if of.name == DEFAULT else tuned(of, method))
    assert missing(read("cifar10-b1"), (), {"data_dir": tmp_path}) == []


def test_a_track_is_shown_with_the_methods_that_take_part(track, capsys):
    content = "# What it shows, in a line. And more.\n" + Path(track).read_text()
    Path(track).write_text(content)
    assert main(["track", f"--track={track}"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{track}, version 1: What it shows, in a line.\n")
    for line in ("setting  batch 1, victim lenet", "budget   1 tasks of 10 victim gradients", "missing  nothing"):
        assert line in out
    left_out = dict(re.findall(r"^left out (\w+): (.*)$", out, re.MULTILINE))
    assert left_out["igims"] == "igims needs 102 victim gradients at least, and the budget is 10."
    assert left_out["rgap"].startswith("rgap does not support defenses")
    shown = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line and "left out" not in line}
    assert shown["gias"] == ["dcgan-photos32", "-", "-"]
    assert shown["ig"] == ["-", "-", "-"]
    assert not left_out.keys() & {"gias", "ig"}


def test_where_something_is_missing_methods_are_asked_for_their_prior_alone(tmp_path, capsys):
    assert main(["track", "--track=imagenet64-b1-resnet18", f"--data_dir={tmp_path}", f"--weights={tmp_path}"]) == 0
    out = " ".join(capsys.readouterr().out.split())  # lines are as wide as the widest row
    assert "missing 50 test images of imagenet" in out
    assert "left out lti: the track has no inverter, which lti needs; name another with --track." in out
    assert "known only where nothing is missing" in out


def test_an_unknown_tier_is_refused(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(GOOD | {"tier": "tpu"}))
    with pytest.raises(InputError, match="tier is 'tpu'; give cpu or gpu"):
        read(str(file))
