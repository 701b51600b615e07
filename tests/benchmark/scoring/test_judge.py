"""Scoring while the attack works on the next task."""

import json
from dataclasses import replace
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from attacks.ig import IG
from attacks.spear import SPEAR
from benchmark import run as run_of
from benchmark.__main__ import main
from benchmark.scoring import judge
from benchmark.scoring.lpips import BACKBONES
from victims.data.photos import Photos
from victims.models.fcn3 import FCN3
from victims.victim import Victim

SECONDS = 60
SPEAR_RUN = ["run", "--attack=spear", "--victim=fcn:150", "--batch=4", "--tasks=1", "--defense=none", "--devices=1"]


@pytest.fixture
def run(tmp_path):
    """A run of two tasks in this process; returns the exit code."""
    options = ["--attack=ig", "--victim=lenet", "--batch=2", "--tasks=2", "--steps=4", "--restarts=1"]
    return lambda *more: main(["run", *options, "--devices=1", "--wandb=off", f"--out={tmp_path}", *more])


def rows(folder):
    return [json.loads(line) for file in folder.glob("*/parts/*.jsonl") for line in file.read_text().splitlines()]


def test_the_attack_continues_with_the_next_task_while_one_is_scored(run, tmp_path, monkeypatch):
    begun, order = Event(), []

    def begin(attack, observations, begin=IG.begin):
        order.append(f"attack {len(order)}")
        if len(order) == 2:
            begun.set()
        begin(attack, observations)

    def score(*images, score=judge.score, **given):
        assert begun.wait(SECONDS), "the second task waits for the scores of the first"
        return score(*images, **given)

    monkeypatch.setattr(IG, "begin", begin)
    monkeypatch.setattr(judge, "score", score)
    assert run() == 0
    assert order == ["attack 0", "attack 1"]
    (file,) = tmp_path.glob("*/rows.jsonl")
    assert len(file.read_text().splitlines()) == 4


def test_an_error_while_scoring_ends_the_run(run, monkeypatch):
    def score(*_, **__):
        raise RuntimeError("no score")

    monkeypatch.setattr(judge, "score", score)
    with pytest.raises(RuntimeError, match="no score"):
        run()


def test_an_attacked_task_is_written_down_even_if_the_next_one_fails(run, tmp_path, monkeypatch):
    scoring, seen = Event(), []

    def training_step(attack, observations, index, step=IG.training_step):
        seen.append(observations[0].task)
        if len(set(seen)) == 2:
            scoring.set()
            raise RuntimeError("cut")
        step(attack, observations, index)

    def score(*images, score=judge.score, **given):
        assert scoring.wait(SECONDS)
        return score(*images, **given)

    monkeypatch.setattr(IG, "training_step", training_step)
    monkeypatch.setattr(judge, "score", score)
    with pytest.raises(RuntimeError, match="cut"):
        run()
    assert {row["task"] for row in rows(tmp_path)} == {seen[0]}


@pytest.mark.parametrize(("restarts", "path"), [(1, "plain"), (2, "factored")])
def test_rows_say_how_gradients_were_computed(restarts, path, run, tmp_path):
    assert run(f"--restarts={restarts}", "--tasks=1") == 0
    (file,) = tmp_path.glob("*/rows.jsonl")
    assert {json.loads(line)["gradient_path"] for line in file.read_text().splitlines()} == {path}


def test_the_seconds_of_a_group_are_shared_by_its_tasks(capture, monkeypatch):
    tasks, clock, written = [capture(task=name) for name in "ab"], iter([10.0, 16.0]), []
    result = IG(steps=1, restarts=1).run([task.observation for task in tasks])
    of_group = judge.Judge(None, None, {}, None)
    of_group.tasks = tasks
    monkeypatch.setattr(of_group, "record", lambda *given: written.append(given[-1]["seconds"]))
    monkeypatch.setattr(judge, "time", SimpleNamespace(perf_counter=lambda: next(clock)))  # of that module alone
    of_group.start(torch.device("cpu"))
    of_group.submit(result)
    of_group.stop()
    assert written == [3.0, 3.0]


def test_a_backbone_of_lpips_that_is_missing_is_named_once_and_has_no_scores(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    options = ("--control=mean_image", "--tasks=1", f"--weights-dir={tmp_path}")
    assert run(*options) == 0
    assert run(*options, "--lpips=alex") == 0
    printed = capsys.readouterr()
    (first,) = [line for line in printed.out.splitlines() if line.startswith("no lpips ")]
    assert first.endswith(f" -o {tmp_path}/home/hub/checkpoints/squeezenet1_1-b8a52dc0.pth {BACKBONES['squeeze'].url}")
    (said,) = [line for line in printed.err.splitlines() if "alexnet" in line]
    assert said == (
        f"benchmark: no lpips_alex: alexnet weights are neither at {tmp_path}/lpips/alexnet_features.safetensors "
        "nor in the torch hub cache, and GIBENCH_OFFLINE=1 forbids the download; to get it: curl --create-dirs -o "
        f"{tmp_path}/home/hub/checkpoints/alexnet-owt-7be5be79.pth "
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
    )
    files = sorted(tmp_path.glob("*/rows.jsonl"), key=lambda file: file.stat().st_mtime_ns)
    squeeze, alex = (json.loads(file.read_text().splitlines()[0]) for file in files)
    assert {key for key in squeeze if "lpips" in key} == {"lpips", "lpips_backbone"}
    assert (alex["lpips_alex"], alex["lpips_backbone"]) == (None, "none: not asked for")
    assert "lpips" not in alex
    assert squeeze["ssim"] == alex["ssim"]


def test_copies_of_a_picture_are_named_once(tmp_path, capsys):
    random = np.random.default_rng(0)
    pictures = {name: Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)) for name in "abc"}
    (tmp_path / "mine" / "test" / "k").mkdir(parents=True)
    for name, picture in {**pictures, "copy of a": pictures["a"]}.items():
        picture.save(tmp_path / "mine" / "test" / "k" / f"{name}.png")
    options = ["--attack=ig", "--victim=lenet", "--size=16", "--batch=1", "--steps=2", "--devices=1", "--wandb=off"]
    assert main(["run", *options, "--tasks=2", f"--data=folder:{tmp_path / 'mine'}", f"--out={tmp_path}"]) == 0
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "several names" in line]
    assert "in folder a picture is there under several names, such as test-k-a.png, test-k-copy of a.png" in said


def test_a_picture_that_changes_during_a_run_ends_it_in_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine" / "test" / "k").mkdir(parents=True)
    for name in "abc":
        Image.new("RGB", (16, 16), (ord(name), 0, 0)).save(tmp_path / "mine" / "test" / "k" / f"{name}.png")

    def read_split(data, *_, read_split=run_of.read_split):
        for file in tmp_path.glob("mine/test/k/*"):
            Image.new("RGB", (16, 16), "white").save(file)
        return read_split(data, *_)

    monkeypatch.setattr(run_of, "read_split", read_split)
    options = ["--attack=ig", "--victim=lenet", "--size=16", "--batch=1", "--steps=2", "--devices=1", "--wandb=off"]
    assert main(["run", *options, "--tasks=1", f"--data=folder:{tmp_path / 'mine'}", f"--out={tmp_path}"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("changed while the split was read or attacked; start the same command again.")
    assert not rows(tmp_path)


def finished(folder):
    return [json.loads(line) for file in folder.glob("*/rows.jsonl") for line in file.read_text().splitlines()]


def test_the_certificate_of_a_row_is_that_of_its_image(tmp_path, monkeypatch):
    """Only reconstructions that are bright are certified, so that exactly the rows of bright images may say so."""

    def result(attack, result=SPEAR.result):
        found = result(attack)
        assert found.certified.all()
        return replace(found, certified=found.pixels.mean((2, 3, 4)) > threshold)

    data = Photos()
    assert main([*SPEAR_RUN, "--wandb=off", f"--out={tmp_path / 'as it is'}"]) == 0
    written = finished(tmp_path / "as it is")
    bright = {row["image"]: float(data[data.ids.index(row["image"])][0].mean()) for row in written}
    assert all(row["certified"] is True and row["psnr"] > 60 for row in written)
    threshold = np.median(list(bright.values()))
    monkeypatch.setattr(SPEAR, "result", result)
    assert main([*SPEAR_RUN, "--wandb=off", f"--out={tmp_path / 'bright'}"]) == 0
    told = {row["image"]: row["certified"] for row in finished(tmp_path / "bright")}
    assert told == {image: value > threshold for image, value in bright.items()}
    assert set(told.values()) == {True, False}


def test_a_method_without_a_check_has_no_certificate(run, tmp_path):
    assert run() == 0
    assert {row["certified"] for row in finished(tmp_path)} == {None}


def test_labels_are_scored_where_batch_norm_takes_no_single_image():
    """In train mode, of features that have no positions."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    victim = Victim(net, mean=(0.5,) * 3, std=(0.25,) * 3, training=True)
    task = SimpleNamespace(victim=victim, images=torch.rand(4, 3, 4, 4), labels=torch.tensor([0, 1, 2, 0]))
    assert set(judge.label_scores(task, torch.tensor([0, 0, 1, 2])).values()) == {1.0}


def test_with_one_logit_a_label_is_found_where_it_is_odd_or_even_as_the_true_one(capture):
    task = capture((7,), size=8, rate=None, model=FCN3)
    (true,) = task.labels.tolist()
    for found, score in ((true + 2, 1.0), (true + 1, 0.0)):
        assert judge.label_scores(task, torch.tensor([found])) == {"label_counts": score, "label_existence": score}
