"""`prior train-inverter`: the updates it trains on, a killed training compared with an undisturbed one, and its use."""

import json
import warnings
from dataclasses import replace

import pytest
import torch
from PIL import Image

from benchmark.__main__ import main
from benchmark.config import Config
from benchmark.priors import inverter
from benchmark.priors.inverter import Training, sent, train_inverter
from benchmark.registry import open_defense
from benchmark.tasks.capture import capture_task, client_update
from benchmark.tasks.controls import mean_image
from priors import weights
from priors.fgla import FGLA
from priors.inverters import signature
from priors.lti import LTI
from victims.data.photos import Photos, regions
from victims.errors import InputError, Notice
from victims.modules import build

SMALL = {"victim": "lenet", "batch": 2, "defense": "sparsification:0.5", "width": 8, "hashed": 64}
SMALL |= {"updates": 4, "steps": 3, "lr": 1e-3}


@pytest.fixture(autouse=True)
def _global_generator_is_given_back():
    with torch.random.fork_rng():
        yield


def batches(count, size):
    images, labels = Photos(split="train").augmented(count * size, torch.Generator().manual_seed(3))
    return inverter.in_order(images.unflatten(0, (count, size)), labels.unflatten(0, (count, size)))


# Updates.


@pytest.mark.parametrize(
    "text", ["none", "sparsification:0.9", "noise:0.01", "clipping:1", "dp_sgd:1:0.1", "soteria:0.5"]
)
@pytest.mark.parametrize("size", [1, 2])
def test_what_is_trained_on_is_what_clients_send(text, size):
    victim, defense = Config(victim="lenet").make_victim(Photos(split="train")), open_defense(text)
    images, labels = batches(3, size)
    own = build(LTI, seed=0, setting={}, signature=[], batch=size, image_shape=(3, 32, 32), entries=[1], width=1)
    vectorized = Training(own, victim, defense, Photos(split="train"), 0, 1e-3).vectorized
    assert vectorized == (text not in ("dp_sgd:1:0.1", "soteria:0.5"))
    found = sent(victim, images, labels, defense, torch.Generator().manual_seed(7), vectorized)
    draws = torch.Generator().manual_seed(7)
    for k, (x, y) in enumerate(zip(images, labels, strict=True)):
        update = client_update(victim, x, y, generator=draws, defense=defense)
        for name, g in update.items():
            torch.testing.assert_close(found[name][k], g, rtol=1e-3, atol=1e-5)


def test_batches_are_in_the_order_of_their_labels_and_distinct_where_it_matters():
    images, labels = batches(20, 4)
    assert (labels.diff(dim=1) >= 0).all()
    again, its = Photos(split="train").augmented(80, torch.Generator().manual_seed(3))
    for k in range(80):  # every image keeps its label
        where = (images == again[k]).flatten(2).all(2).nonzero()
        assert any(labels[tuple(place)] == its[k] for place in where)


def test_images_that_are_held_out_share_no_pixel_with_those_trained_on(monkeypatch):
    data, windows = Photos(split="train"), []
    real = __import__("victims.data.photos", fromlist=["crop"]).crop

    def watched(name, x, y, size, window=64):
        windows.append((name, x, y, window))
        return real(name, x, y, size, window)

    monkeypatch.setattr("victims.data.photos.crop", watched)
    kept_out = range(0, len(data), 12)
    data.augmented(400, torch.Generator().manual_seed(0), without=kept_out)
    held = [data.corners[index] for index in kept_out]
    for name, x, y, window in windows:
        covered = {(i, j) for i in range(x, x + window) for j in range(y, y + window)}
        assert not any(
            {(i, j), (i + 63, j), (i, j + 63), (i + 63, j + 63), (i + 31, j + 31)} & covered
            for other, i, j in held
            if other == name
        )
    assert all(regions(name, "train") for name, *_ in windows)


# The command's function.


@pytest.fixture
def trained(tmp_path):
    out = tmp_path / "at-once" / "mine.safetensors"
    train_inverter(out, **SMALL)
    return out


def test_it_writes_an_inverter_that_says_what_it_is_for(trained):
    assert sorted(path.name for path in trained.parent.iterdir()) == ["mine.json", "mine.png", "mine.safetensors"]
    network, record = weights.load(trained), json.loads(trained.with_suffix(".json").read_text())
    assert network.trained_on == "photos train, 32 px: 12 updates of lenet, seed 0, B=2, defense sparsification:0.5"
    assert network.training_seconds == float(record["training_seconds"]) > 0
    assert "--attack lti" in record["command"]
    assert "--hashed 64" in record["command"]
    victim = Config(victim="lenet").make_victim(Photos(split="test"))
    assert network.signature == pytest.approx(signature(victim, (3, 32, 32)))
    assert network.scale.min() > 0
    picture = Image.open(trained.with_suffix(".png"))
    assert picture.size == (2 * 34 + 2, 16 * 34 + 2)  # 8 batches of 2, each above what was rebuilt


def test_a_killed_training_continues_to_the_same_weights(trained, tmp_path, monkeypatch):
    out, step = tmp_path / "killed" / "mine.safetensors", Training.step

    def until(training, *given):
        if training.done == 2:
            raise KeyboardInterrupt
        return step(training, *given)

    monkeypatch.setattr(inverter, "CHECKPOINT_EVERY", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", until)
        with pytest.raises(KeyboardInterrupt):
            train_inverter(out, **SMALL)
    for changes in ({"seed": 1}, {"defense": "none"}, {"lr": 1e-2}):
        with pytest.raises(InputError, match="another training"):
            train_inverter(out, **{**SMALL, **changes})
    train_inverter(out, **SMALL)
    one, other = (weights.load(path).state_dict() for path in (trained, out))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_weights_that_changed_under_the_same_name_are_another_training(tmp_path, monkeypatch):
    out, file = tmp_path / "mine.safetensors", tmp_path / "victim.pt"
    options = {**SMALL, "victim_weights": str(file), "steps": 1}
    config, data = Config(victim="lenet"), Photos(split="train")
    torch.save(config.make_victim(data).model.state_dict(), file)
    with monkeypatch.context() as patch:
        patch.setattr(inverter, "CHECKPOINT_EVERY", 1)
        patch.setattr(weights, "save", lambda *given, **options: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_inverter(out, **options)
    torch.save(replace(config, seed=1).make_victim(data).model.state_dict(), file)
    with pytest.raises(InputError, match="another training"):
        train_inverter(out, **options)
    torch.save(config.make_victim(data).model.state_dict(), file)
    train_inverter(out, **options)


def test_minutes_end_a_training_too(tmp_path):
    train_inverter(tmp_path / "mine.safetensors", **{**SMALL, "minutes": 1e-4})
    record = json.loads((tmp_path / "mine.json").read_text())
    assert "--minutes 0.0001" in record["command"]
    assert "--steps" not in record["command"]


@pytest.mark.parametrize("defense", ["soteria:0.5", "precode", "dp_sgd:1:0.1"])
def test_defenses_that_need_single_gradients_are_trained_under(tmp_path, defense):
    train_inverter(tmp_path / "mine.safetensors", **{**SMALL, "defense": defense, "updates": 2, "steps": 1})
    assert defense in weights.load(tmp_path / "mine.safetensors").trained_on


def training_of(kind, batch, data):
    victim = Config(victim="lenet").make_victim(data)
    own = kind.options(victim, data.image_shape, batch, width=1, hashed=8)
    network = build(kind, seed=0, setting={}, signature=[], batch=batch, image_shape=data.image_shape, **own)
    return Training(network, victim, None, data, 0, 1e-3)


@pytest.mark.parametrize(("kind", "batch"), [(LTI, 17), (FGLA, 9)])
def test_as_many_images_are_held_out_as_make_a_batch(kind, batch):
    data = Photos(split="train")
    training = training_of(kind, batch, data)
    assert all(len(chosen) == batch for chosen in training.held)
    assert {index for chosen in training.held for index in chosen} <= training.kept_out
    images, rebuilt = training.held_out()
    assert images.shape == rebuilt.shape == (len(training.held), batch, 3, 32, 32)
    drawn, labels = training.draw(5)  # as quickly where a batch has nearly all classes
    assert drawn.shape == (5, batch, 3, 32, 32)
    if kind.distinct:
        assert all(len(data.labels[chosen].unique()) == batch for chosen in training.held)
        assert all(len(one.unique()) == batch for one in labels)


@pytest.mark.parametrize("count", [8, 16, 20])
def test_of_few_images_no_more_than_half_are_held_out(count):
    data = Photos(split="train")
    data.ids, data.labels = data.ids[:count], data.labels[:count]
    training = training_of(LTI, 2, data)
    assert 2 <= len(training.kept_out) <= count // 2
    assert training.draw(3)[0].shape == (3, 2, 3, 32, 32)


@pytest.mark.parametrize(("count", "batch"), [(60, 30), (61, 30), (34, 17), (2, 1)])
def test_a_batch_of_exactly_half_of_the_images_is_held_out(count, batch):
    data = Photos(split="train")
    data.ids, data.labels = data.ids[:count], data.labels[:count]
    assert len(training_of(LTI, batch, data).kept_out) == batch


def test_images_of_which_the_rest_makes_no_batch_are_refused_and_not_drawn_for_ever():
    """Every other image is held out, and these have all classes but one."""
    data = Photos(split="train")
    data.ids, data.labels = data.ids[:8], torch.tensor([0, 9, 1, 9, 2, 9, 3, 9])
    with pytest.raises(InputError, match="or the others none to train on; give a smaller --batch") as refusal:
        training_of(FGLA, 3, data)
    assert "\n" not in str(refusal.value)
    data.labels = torch.tensor([0, 8, 1, 9, 2, 7, 3, 9])
    assert training_of(FGLA, 3, data).kept_out == {0, 2, 4, 6}


def test_no_more_images_are_read_than_tell_that_the_rest_makes_a_batch(monkeypatch):
    data, read = Photos(split="train"), []
    training = training_of(FGLA, 3, data)
    plain = Photos.__getitem__
    monkeypatch.setattr(Photos, "__getitem__", lambda self, index: read.append(index) or plain(self, index))
    assert training.suffice(range(len(data)))
    assert len(read) == 3


def test_what_fails_on_held_out_images_fails_before_the_first_step(tmp_path, monkeypatch):
    def failing(training):
        raise InputError("no update")

    monkeypatch.setattr(Training, "held_out", failing)
    monkeypatch.setattr(Training, "step", lambda *given: pytest.fail("a step was taken"))
    with pytest.raises(InputError, match="no update"):
        train_inverter(tmp_path / "mine.safetensors", **SMALL)


FEW = ["--batch=2", "--tasks=1", "--devices=1", "--wandb=off", "--victim=lenet"]


def test_a_run_takes_it_and_its_rows_say_what_it_cost(trained, tmp_path, capsys):
    run = ["run", "--attack=lti", f"--prior={trained}", *FEW, f"--out={tmp_path / 'out'}"]
    assert main(run) == 0
    (file,) = (tmp_path / "out").glob("*/rows.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    seconds = weights.load(trained).training_seconds
    assert [(row["training_seconds"], row["steps"], row["restarts"]) for row in rows] == [(seconds, 1, 1)] * 2
    assert "s of training" in capsys.readouterr().out


def test_another_victim_is_refused_and_another_defense_is_said(trained, tmp_path, capsys):
    run = ["run", "--attack=lti", f"--prior={trained}", *FEW, f"--out={tmp_path / 'out'}"]
    assert main([*run, "--seed=1"]) == 2
    assert "one victim" in capsys.readouterr().err
    with pytest.warns(Notice, match="trained under the defense sparsification:0.5"):
        Config(attack="lti", prior=str(trained), victim="lenet", batch=2, defense="none").make_attack()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        Config(attack="lti", prior=str(trained), victim="lenet", batch=2).make_attack()


def test_fgla_is_trained_on_distinct_labels_and_refuses_others(tmp_path, capsys):
    out = tmp_path / "mine.safetensors"
    train_inverter(out, attack="fgla", **{**SMALL, "defense": "none", "batch": 3})
    run = ["run", "--attack=fgla", f"--prior={out}", *FEW, "--batch=3", "--defense=none", f"--out={tmp_path / 'out'}"]
    assert main([*run, "--tasks=3"]) == 2
    assert "--batches distinct" in capsys.readouterr().err
    assert main([*run, "--batches=distinct"]) == 0
    assert main(["run", "--attack=fgla", *FEW, "--batches=distinct"]) == 2
    assert "prior train-inverter" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"out": "mine.pt"}, "safetensors"),
        ({"width": 0}, "width"),
        ({"updates": 0}, "updates"),
        ({"steps": 0}, "steps"),
        ({"hashed": -1}, "hashed"),
        ({"lr": 0.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"batch": 0}, "batch is 0"),
        ({"minutes": 0.0}, "minutes"),
        ({"minutes": float("inf")}, "minutes"),
        ({"batch": 400}, "smaller --batch"),
        ({"victim": "lenett"}, "lenet"),
        ({"data": "nothing"}, "photos"),
        ({"defense": "label_confusion:2", "batch": 4}, "forms the batches"),
        ({"attack": "ig"}, "lti"),
        ({"attack": "fgla", "batch": 10}, "not in the batch"),
        ({"attack": "fgla", "victim": "cnn6"}, "not in the batch|one linear classifier"),
    ],
    ids=str,
)
def test_bad_options_are_refused_in_one_line_before_anything_is_written(tmp_path, changes, match):
    out = tmp_path / "new" / changes.get("out", "mine.safetensors")
    with pytest.raises(InputError, match=match) as error:
        train_inverter(out, **{**SMALL, **{name: value for name, value in changes.items() if name != "out"}})
    assert "\n" not in str(error.value)
    assert not out.parent.exists()


def test_the_shipped_inverter_fits_the_default_run_and_beats_the_mean_image():
    config = Config(attack="lti")
    data, attack, errors = config.make_data(), config.make_attack(), []
    victim, mean = config.make_victim(data), mean_image(config.make_data("train"))
    for batch in config.make_batches(data, 6):
        task = capture_task(victim, data, batch, config.make_client())
        images = attack.invert(attack.prepare(task.observation))
        pair = torch.stack([images, mean.expand_as(images)])
        errors.append(attack.prior.errors(pair, task.images.expand_as(pair)).mean(1))
    trained, control = torch.stack(errors).mean(0)
    assert trained < 0.6 * control
