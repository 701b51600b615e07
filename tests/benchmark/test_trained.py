"""EPOCHS_TRAINED: what training a victim gets before it is attacked, and that it gets it once."""

import json
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from benchmark import trained
from benchmark.config import Config
from benchmark.contents import contents
from benchmark.run import run
from benchmark.scoring.accuracy import victim_accuracy
from benchmark.trained import steps_of, train_first
from victims.data.photos import Photos
from victims.errors import InputError, Notice
from victims.losses.base import Own
from victims.losses.cross_entropy import CrossEntropy
from victims.models.lenet import LeNet
from victims.models.resnet20 import ResNet20
from victims.modules import build

SHAPE = {"image_shape": (3, 16, 16), "num_classes": 10}


@pytest.fixture
def data():
    return Photos(split="train", size=16)


def after(model, data, out, *, steps=3, seed=0, loss=None):
    train_first(model, loss or CrossEntropy(), data, data.preprocessing, steps=steps, seed=seed, written="", out=out)
    return model.state_dict()


def lenet(seed=0):
    return build(LeNet, **SHAPE, seed=seed)


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def files(out):
    return sorted(out.glob("victims/*/*"))


@pytest.fixture
def no_training(monkeypatch):
    def learn(*_):
        raise AssertionError("it is trained again")

    return lambda: monkeypatch.setattr(trained, "learn", learn)


@pytest.mark.parametrize(
    ("written", "steps"),
    [("0", 0), ("1steps", 1), ("1000steps", 1000), ("3", 300), ("0.5", 50), ("2.", None), ("1", 100)],
)
def test_epochs_and_steps_are_read(written, steps):
    if steps is None:
        with pytest.raises(InputError):
            steps_of(written, 6400)
    else:
        assert steps_of(written, 6400) == steps  # batches of 64


@pytest.mark.parametrize(
    "written", ["", "-1", "three", "1e9", "1.5steps", "3 epochs", "nan", "9" * 30, "0steps", "0.001"]
)
def test_what_is_no_training_is_refused(written):
    with pytest.raises(InputError, match="epochs_trained") as error:
        Config(epochs_trained=written, size=16).make_victim(Photos(split="test", size=16))
    assert "\n" not in str(error.value)


def test_it_is_sgd_with_momentum(data, tmp_path):
    """A second implementation: v <- 0.9 v + g, w <- w - 0.01 v, on images drawn from the seed."""
    plain, draws = lenet().train(), torch.Generator().manual_seed(5)
    moving = {name: torch.zeros_like(p) for name, p in plain.named_parameters()}
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    for _ in range(3):
        images, labels = data.augmented(64, draws)
        loss = nn.functional.cross_entropy(plain((images - mean) / std), labels)
        for (name, p), g in zip(plain.named_parameters(), torch.autograd.grad(loss, plain.parameters()), strict=True):
            moving[name] = 0.9 * moving[name] + g
            p.data -= 0.01 * moving[name]
    found = after(lenet(), data, tmp_path, seed=5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)


def test_a_longer_training_begins_as_a_shorter_one(data, tmp_path, monkeypatch):
    """So that a curve over steps shows one training. The state of the optimizer is lost here, hence a single step."""
    seen = []
    backward = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: (seen.append(loss.item()), backward(loss))[1])
    for steps in (2, 4):
        after(lenet(), data, tmp_path, steps=steps)
    assert seen[:2] == seen[2:4]


def test_batch_norm_gets_its_running_statistics_and_keeps_its_mode(data, tmp_path):
    model = build(ResNet20, **SHAPE, seed=0).eval()
    found = after(model, data, tmp_path)
    assert found["bn1.running_mean"].abs().max() > 0
    assert found["bn1.num_batches_tracked"] == 3
    assert not any(module.training for module in model.modules())


def test_a_training_is_kept(data, tmp_path, no_training):
    first, start = after(lenet(), data, tmp_path), lenet().state_dict()
    (file,) = files(tmp_path)
    assert not same(first, start)
    no_training()
    assert same(first, after(lenet(), data, tmp_path))
    assert files(tmp_path) == [file]


class Versioned(LeNet):
    """It loads no weights that lack the version of its layers, as torchvision's MNASNet."""

    def _load_from_state_dict(self, state, prefix, local_metadata, *rest):
        if "version" not in local_metadata:
            raise ValueError("no version")
        super()._load_from_state_dict(state, prefix, local_metadata, *rest)


def test_layers_are_told_their_version(data, tmp_path):
    model = build(Versioned, **SHAPE, seed=0)
    assert same(after(lenet(), data, tmp_path / "plain"), after(model, data, tmp_path / "versioned"))


class Gray(Photos):
    """Other images under the same names."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image.mean(0, keepdim=True).expand(3, -1, -1), label


def twice(logits, labels):
    return 2 * nn.functional.cross_entropy(logits, labels)


@pytest.mark.parametrize(
    "change",
    [
        lambda data, out: after(lenet(seed=1), data, out),
        lambda data, out: after(lenet(), data, out, steps=4),
        lambda data, out: after(lenet(), data, out, seed=1),
        lambda data, out: after(lenet(), data, out, loss=Own(twice)),
        lambda _, out: after(lenet(), Gray(split="train", size=16), out),
        lambda data, out: train_first(
            lenet(),
            CrossEntropy(),
            data,
            replace(data.preprocessing, std=(1.0,) * 3),
            steps=3,
            seed=0,
            written="",
            out=out,
        ),
    ],
    ids=["weights", "steps", "seed", "loss", "images", "preprocessing"],
)
def test_another_training_is_another_file(change, data, tmp_path):
    after(lenet(), data, tmp_path)
    change(data, tmp_path)
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_a_broken_file_is_trained_again(content, data, tmp_path):
    first = {name: value.clone() for name, value in after(lenet(), data, tmp_path).items()}
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:1000] if content is None else content)
    assert same(first, after(lenet(), data, tmp_path))
    assert trained.kept(file) is not None


def test_a_file_with_other_weights_is_trained_again(data, tmp_path):
    """They have the right names and shapes, but are not what was written."""
    first = {name: value.clone() for name, value in after(lenet(), data, tmp_path).items()}
    (file,) = files(tmp_path)
    with safe_open(file, framework="pt") as opened:
        about = opened.metadata()
    save_file({name: value + 1 for name, value in first.items()}, file, metadata=about)
    assert same(first, after(lenet(), data, tmp_path))
    save_file({name: value.clone() for name, value in first.items()}, file)  # not by this module
    assert trained.kept(file) is None


def test_a_file_of_another_training_is_trained_again_and_said(data, tmp_path):
    first = {name: value.clone() for name, value in after(lenet(), data, tmp_path).items()}
    (file,) = files(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)  # of a whole file there is nothing to say
        after(lenet(1), data, tmp_path)
    (other,) = set(files(tmp_path)) - {file}
    file.write_bytes(other.read_bytes())
    with pytest.warns(Notice, match="trained again"):
        again = after(lenet(), data, tmp_path)
    assert same(first, again)


@pytest.mark.parametrize(
    ("written", "plain"),
    [("05steps", "5steps"), ("1.0", "1"), ("01", "1"), ("0.50", "0.5"), ("000", "0"), ("0.0", "0"), ("10", "10")]
    + [(odd, odd) for odd in ("2.", "1.5steps", "-1", "1e9", "", "100steps")],
)
def test_one_training_has_one_form(written, plain):
    assert Config(epochs_trained=written).epochs_trained == plain


def contents_of(config):
    data = config.make_data()
    return contents(config, data, config.make_victim(data), config.make_attack(), config.make_batches(data, 1))


@pytest.mark.parametrize("options", [{"epochs_trained": "2steps"}, {"rounds": 2, "between": 1}])
def test_what_a_victim_was_trained_by_and_on_is_part_of_a_run(options, tmp_path, monkeypatch):
    """Whatever the seed, as for all contents."""
    config = Config(attack="ig", victim="lenet", batch=1, out=tmp_path, **options)
    before = contents_of(config)["victim"]
    assert "victims/rounds.py" in before
    assert contents_of(replace(config, seed=1))["victim"] == before
    monkeypatch.setattr(Photos, "split_digest", lambda self: "another")
    changed = contents_of(config)["victim"]
    assert {part for part in before if changed[part] != before[part]} == {"the training split"}


def test_of_several_that_start_at_once_one_trains(data, tmp_path, monkeypatch):
    calls, waited_for, sleep = [], threading.Event(), time.sleep

    def learn(model, *_):
        calls.append(1)
        assert waited_for.wait(60)
        nn.init.constant_(model.classifier.weight, len(calls))

    def look(seconds):
        waited_for.set()
        sleep(seconds)

    monkeypatch.setattr(trained, "learn", learn)
    monkeypatch.setattr(trained.time, "sleep", look)
    models = [lenet() for _ in range(3)]  # not in the threads, which would share the global generator
    with pytest.warns(match="another process is training"), ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda model: after(model, data, tmp_path), models))
    assert calls == [1]
    assert all((weights["classifier.weight"] == 1).all() for weights in found)


class Dropped(LeNet):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.5, self.training))


def test_dropout_is_the_same_again_and_moves_no_other_draws(data, tmp_path):
    before = torch.get_rng_state()
    one, other = (after(build(Dropped, **SHAPE, seed=0), data, tmp_path / out) for out in "ab")
    assert same(one, other)
    assert not same(one, after(lenet(), data, tmp_path / "c"))
    assert torch.equal(before, torch.get_rng_state())


def test_a_training_that_diverges_is_refused(data, tmp_path):
    huge = Own(lambda logits, labels: 1e30 * nn.functional.cross_entropy(logits, labels))
    with pytest.raises(InputError, match="NaN or infinite weights; choose another") as error:
        after(lenet(), data, tmp_path, loss=huge)
    assert "\n" not in str(error.value)
    assert files(tmp_path) == []


class Masked(LeNet):
    def __init__(self, **options):
        super().__init__(**options)
        self.register_buffer("mask", torch.tensor([0, -torch.inf]))


def test_what_is_infinite_before_may_stay_so(data, tmp_path):
    assert after(build(Masked, **SHAPE, seed=0), data, tmp_path)["mask"][1] == -torch.inf


def test_a_folder_that_cannot_be_written_is_refused(data, tmp_path):
    (tmp_path / "victims").touch()
    with pytest.raises(InputError, match=r"cannot write the trained victim.*another --out"):
        after(lenet(), data, tmp_path)


# As an option of a run.


def config_of(tmp_path, **options):
    options = {"victim": "lenet", "size": 16, "epochs_trained": "2steps", "out": tmp_path} | options
    return Config(**options)


def test_the_victim_of_a_run_is_trained_with_its_defense(tmp_path, data):
    plain, guarded, bare = (
        config_of(tmp_path, **options).make_victim(Photos(split="test", size=16)).parameters
        for options in ({}, {"defense": "precode:8"}, {"epochs_trained": "0"})
    )
    assert not same(plain, bare)
    start = config_of(tmp_path, defense="precode:8", epochs_trained="0").make_victim(data).parameters
    assert all(not torch.equal(p, start[name]) for name, p in guarded.items())


def test_it_goes_on_from_a_file(tmp_path, data):
    after(lenet(seed=1), data, tmp_path / "first", steps=2)
    (file,) = files(tmp_path / "first")
    found = config_of(tmp_path, victim_weights=str(file), epochs_trained="2steps").make_victim(data)
    expected = after(lenet(seed=1), data, tmp_path / "first", steps=2)
    further = build(LeNet, **SHAPE, seed=0)
    further.load_state_dict(expected)
    assert same(found.parameters, after(further, data, tmp_path / "second", steps=2))


def test_calibrated_weights_and_rounds_of_new_weights_are_refused(tmp_path):
    data = Photos(split="test", size=16)
    for options in ({"victim_weights": "calibrated", "victim": "resnet20"}, {"rounds": 2}):
        with pytest.raises(InputError, match="train") as error:
            config_of(tmp_path, **options).make_victim(data)
        assert "\n" not in str(error.value)


def test_rounds_begin_with_the_trained_model(tmp_path):
    data = Photos(split="test", size=16)
    (one,), _ = config_of(tmp_path).make_models(data, 0)
    (first, second), _ = config_of(tmp_path, rounds=2, between=1).make_models(data, 0)
    assert same(one.state_dict(), first.state_dict())
    assert not same(first.state_dict(), second.state_dict())


def test_accuracy_is_that_of_the_trained_model_on_the_test_split(tmp_path):
    config = config_of(tmp_path, split="tune", epochs_trained="40steps", victim_mode="train")
    victim = config.make_victim(Photos(split="tune", size=16))
    test = Photos(split="test", size=16)
    images, labels = test.batch(test.sample(1000))
    with torch.no_grad():
        found = victim.logits(victim.parameters, victim.normalize(images)).argmax(1)
    assert victim_accuracy(config) == pytest.approx((found == labels).double().mean().item(), abs=1e-6)
    assert victim_accuracy(config) > 0.2  # of ten classes
    assert victim_accuracy(replace(config, epochs_trained="0")) is None


def rows_of(folder):
    """Without what depends on the time."""
    unstable = ("seconds", "memory")
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in unstable} for line in lines]


def test_rows_say_it_and_are_the_same_in_two_processes(tmp_path):
    options = {"attack": "ig", "steps": 2, "tasks": 2, "batch": 2, "devices": 1, "wandb": "off"}
    one = run(config_of(tmp_path / "one", **options))
    (weights,) = files(tmp_path / "one")
    rows = rows_of(one.path)
    assert [(row["epochs_trained"], row["axis"]["steps of the victim's training"]) for row in rows] == 4 * [
        ("2steps", 2)
    ]
    assert 0 <= rows[0]["victim_accuracy"] <= 1
    assert f"# victim_accuracy: {rows[0]['victim_accuracy']}" in one.config_file.read_text()
    kept = tmp_path / "two" / "victims" / weights.parent.name
    command = [sys.executable, "-m", "benchmark", "run", "--out", str(tmp_path / "two"), "--epochs-trained", "2steps"]
    for name, value in (options | {"devices": 2, "victim": "lenet", "size": 16}).items():
        command += [f"--{name}", str(value)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "victim   2 steps of training: " in said.stdout
    assert (kept / weights.name).read_bytes() == weights.read_bytes()
    (two,) = (path for path in (tmp_path / "two").iterdir() if path.name.startswith("ig"))
    assert rows_of(two) == rows
