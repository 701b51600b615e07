"""What a defense costs: errors of updates against hand calculation, training against plain SGD, and the table."""

import math
import re

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmark.__main__ import main
from benchmark.scoring.accuracy import classified_right
from benchmark.setting import Setting
from benchmark.tasks.batches import Batch
from benchmark.utility import accuracy, budget, in_eval_mode, train_defended, update_error, utility
from defenses.base import Chain, Defense
from defenses.sparsification import Sparsification
from tests.victims.test_modes import Net
from victims.client import calibrate
from victims.data.base import ImageData
from victims.data.photos import Photos
from victims.errors import InputError
from victims.models.lenet import LeNet
from victims.modules import build
from victims.victim import Victim

BATCHES = [Batch("a", (0, 5, 9)), Batch("b", (2, 3, 4))]


class Scaled(Defense):
    """Twice the gradient in every step, minus three times that in the end: -6 times the gradient is sent."""

    def gradient_fn(self, gradient_fn, victim, generator):
        return lambda *given: {name: 2 * g for name, g in gradient_fn(*given).items()}

    def __call__(self, update, generator):
        return {name: -3 * g for name, g in update.items()}

    @staticmethod
    def estimate(received, victim):
        return lambda gradient: gradient


class Private(Scaled):
    def epsilon(self, steps, sample_rate, delta=1e-5):
        return steps * sample_rate


@pytest.fixture
def data():
    return Photos(split="train", size=8)


@pytest.fixture
def victim(data):
    net = build(LeNet, image_shape=(3, 8, 8), num_classes=10, seed=0)
    return Victim(net, mean=data.mean, std=data.std)


def test_a_scaled_update_has_its_factor_and_direction(victim, data):
    assert update_error(victim, None, data, BATCHES[0]) == pytest.approx((1, 1))
    assert update_error(victim, Scaled(), data, BATCHES[0]) == pytest.approx((6, -1))


def test_the_largest_half_keeps_its_share_of_the_norm(victim, data):
    """Of a projection norm and cosine are the same: <Pg, g> = |Pg|^2."""
    norm, cosine = update_error(victim, Sparsification(0.9), data, BATCHES[0])
    assert norm == pytest.approx(cosine)
    images, labels = data.batch(BATCHES[0].indices)
    net = build(LeNet, image_shape=(3, 8, 8), num_classes=10, seed=0)
    cross_entropy(net(victim.normalize(images)), labels).backward()
    squares = [p.grad.square().flatten().sort(descending=True).values for p in net.parameters()]
    kept = sum(s[: len(s) - int(len(s) * 9 / 10)].sum() for s in squares)
    assert norm == pytest.approx(float((kept / sum(s.sum() for s in squares)).sqrt()), rel=1e-5)


@pytest.mark.parametrize(("defense", "factor"), [(None, 1), (Scaled(), -6)])
def test_training_is_sgd_on_what_is_sent(defense, factor, victim, data):
    before = {name: p.clone() for name, p in victim.parameters.items()}
    theta = train_defended(victim, defense, data, BATCHES, 0.1, seed=0).parameters
    net = build(LeNet, image_shape=(3, 8, 8), num_classes=10, seed=0)
    optimizer = torch.optim.SGD(net.parameters(), lr=abs(0.1 * factor), maximize=factor < 0)
    for batch in BATCHES:
        images, labels = data.batch(batch.indices)
        optimizer.zero_grad()
        cross_entropy(net(victim.normalize(images)), labels).backward()
        optimizer.step()
    for name, p in net.named_parameters():
        torch.testing.assert_close(theta[name], p.detach(), rtol=1e-4, atol=1e-6)
    assert all(torch.equal(p, before[name]) for name, p in victim.parameters.items())


@pytest.mark.parametrize("classes", [10, 1])
def test_accuracy_is_the_share_found(classes, data):
    """A classifier whose logits are known: the class is always 3, or odd."""

    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(classes))

        def forward(self, x):
            return self.bias.expand(len(x), classes)

    victim = Victim(Stubborn(), mean=data.mean, std=data.std)
    logits = torch.ones(1) if classes == 1 else torch.eye(10)[3]
    indices = list(range(len(data)))
    right = (data.labels % 2 == 1) if classes == 1 else (data.labels == 3)
    assert accuracy(victim, {"bias": logits}, data, indices) == pytest.approx(float(right.double().mean()))


class Contrast(nn.Module):
    """Dark or bright, next to the mean of the batch: two logits."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x):
        bright = self.norm(x).mean((1, 2, 3))
        return torch.stack([-bright, bright], 1)


class Shades(ImageData):
    """600 images in the order of their classes, dark and bright; numbers 290 and 400 are not like their class."""

    classes = ("dark", "bright")
    ids = [str(k) for k in range(600)]
    labels = torch.tensor([0] * 300 + [1] * 300)

    def __getitem__(self, index):
        label = int(self.labels[index])
        return torch.full((3, 2, 2), (1 + abs(label - (index in (290, 400)))) / 4), label


def test_a_class_is_found_next_to_images_of_all_classes():
    """Of batches in the data's order the first has one class alone."""
    victim, data = Victim(Contrast(), mean=(0.0,) * 3, std=(1.0,) * 3), Shades()
    right = classified_right(victim, victim.parameters, data, range(600))
    assert [k for k in range(600) if not right[k]] == [290, 400]


@pytest.mark.parametrize("classes", [10, 1])
def test_nan_finds_no_class(classes, victim, data):
    net = build(LeNet, image_shape=(3, 8, 8), num_classes=classes, seed=0)
    victim = Victim(net, mean=data.mean, std=data.std)
    theta = {name: p * math.nan for name, p in victim.parameters.items()}
    assert accuracy(victim, theta, data, range(len(data))) == 0


def test_a_budget_is_spent_by_the_last_part_that_sees_the_images():
    private = Private()
    assert budget(None) is None
    assert budget(Sparsification(0.5)) is None
    assert budget(private)(10, 0.5, 1e-5) == 5
    assert budget(Chain([Scaled(), private, Sparsification(0.5)])) == private.epsilon
    assert budget(Chain([private, Scaled()])) is None  # its gradient sees the images after the noise


# The table.

SMALL = {"victim": "lenet", "size": 8, "trials": 2, "steps": 2, "seeds": 2, "batch": 4}


def test_the_table_has_a_line_for_every_defense(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    utility(**SMALL, defense="none,sparsification:0.99")
    printed = capsys.readouterr().out
    share = r"\d\.\d+ \[\d\.\d+, \d\.\d+\]"
    assert re.search(rf"^none +1\.000 \[-\] +1\.000 \[-\] +{share}$", printed, re.M)  # every update is sent as it is
    assert re.search(rf"^sparsification:0\.99 +{share} +{share} +{share}$", printed, re.M)
    assert "epsilon" not in printed
    for fact in (
        "data photos",
        "victim lenet",
        "2 batches of 4",
        "96 test images",
        "2 steps",
        "learning rate 0.05",
        "2 trainings, each on other batches from other initial weights",
    ):
        assert fact in " ".join(printed.split())


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_accuracy_is_that_of_eval_mode(mode, monkeypatch, data):
    """Of a training on batches with the running statistics of train images, else with those of the training."""
    seen = []
    monkeypatch.setattr("benchmark.utility.accuracy", lambda *given: seen.append(given) or 0.5)
    utility(**SMALL | {"victim": "tests.victims.test_modes.Net", "victim_mode": mode, "seeds": 1}, defense="none")
    ((victim, theta, test, tested),) = seen
    net = build(Net, image_shape=(3, 8, 8), num_classes=10, seed=0)
    net.load_state_dict(theta, strict=False)
    if mode == "train":
        calibrate(net, data, data.preprocessing)
    images, _ = test.batch(tested)
    with torch.no_grad():
        found = victim.logits(theta, victim.normalize(images.to(victim.mean))).cpu()
        expected = net.eval()(data.preprocessing.normalize(images))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_layers_that_a_model_keeps_frozen_keep_their_statistics(data):
    config = Setting(victim="tests.victims.test_modes.Finetuned", size=8, victim_mode="train")
    trained = config.make_victim(data)
    used = in_eval_mode(trained, config, data).to("cpu")
    stem, body = trained.model.stem, used.model.body
    for name in ("running_mean", "running_var"):
        assert torch.equal(getattr(used.model.stem[1], name), getattr(stem[1], name))
    inputs = [body[0](stem(trained.normalize(data.batch(range(k, k + 64))[0]))) for k in (0, 64, 128)]
    entering = torch.stack([x.transpose(0, 1).flatten(1) for x in inputs])
    torch.testing.assert_close(body[1].running_mean, entering.mean(2).mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(body[1].running_var, entering.var(2).mean(0), rtol=1e-4, atol=1e-5)


def test_every_seed_trains_on_other_batches_also_from_weights_of_a_file(tmp_path, capsys, monkeypatch):
    seen = []

    def watched(victim, defense, data, batches, lr, seed):
        seen.append({batch.task for batch in batches})
        return victim

    monkeypatch.setattr("benchmark.utility.train_defended", watched)
    file = tmp_path / "weights.pt"
    torch.save(build(LeNet, image_shape=(3, 8, 8), num_classes=10, seed=3).state_dict(), file)
    utility(**SMALL | {"seeds": 3}, defense="none,sparsification:0.9", victim_weights=str(file))
    assert [len(tasks) for tasks in seen] == [2] * 6
    assert len(set.union(*seen[:3])) == 6
    assert seen[:3] == seen[3:]  # the same for every defense
    assert "3 trainings, each on other batches from the same weights" in " ".join(capsys.readouterr().out.split())


def test_a_training_that_diverges_has_no_accuracy(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    utility(**SMALL | {"victim": "fcn:8", "lr": 1e30}, defense="none")
    assert re.search(r"^none .* 2 of 2 diverged$", capsys.readouterr().out, re.M)


def test_batches_that_share_images_count_as_one_for_the_errors_alone(capsys, monkeypatch):
    """192 images are 3 batches of 64: the fourth shares images with all of them."""
    monkeypatch.setenv("COLUMNS", "160")
    options = SMALL | {"batch": 64, "defense": "sparsification:0.99"}
    share = r"\d\.\d+ \[\d\.\d+, \d\.\d+\]"
    utility(**options | {"trials": 3})
    assert re.search(rf"^sparsification:0\.99 +{share} +{share} +{share}$", capsys.readouterr().out, re.M)
    utility(**options | {"trials": 6})
    printed = capsys.readouterr().out
    assert re.search(rf"^sparsification:0\.99 +\d\.\d+ \[-\] +\d\.\d+ \[-\] +{share}$", printed, re.M)
    assert "95 % intervals over them; they share images and count as 1" in " ".join(printed.split())


def test_a_defense_with_a_budget_has_it_in_the_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("benchmark.setting.open_defense", lambda text: None if text == "none" else Private())
    utility(**SMALL | {"seeds": 1}, defense="none,private")
    printed = capsys.readouterr().out
    spent = 2 * 4 / len(Photos(split="train", size=8))
    assert re.search(rf"^private .* {spent:.3g}$", printed, re.M)
    assert re.search(r"^none .* -$", printed, re.M)
    assert "at delta 1e-05" in printed


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"trials": 0}, "trials is 0"),
        ({"seeds": 0}, "seeds is 0"),
        ({"lr": 0}, "lr is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"defense": "none,sparsify:1"}, "did you mean 'sparsification'"),
        ({"defense": "sparsification"}, "write sparsification:RATE"),
        ({"victim": "lenett"}, "did you mean 'lenet'"),
    ],
)
def test_bad_input_is_one_line(options, expected):
    with pytest.raises(InputError, match=expected) as refusal:
        utility(**{**SMALL, **options})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("option", ["--amp=bf16", "--local_optimizer=adam"])
def test_what_its_training_does_not_do_is_no_option(option, capsys):
    assert main(["utility", option]) == 2
    assert option.partition("=")[0].strip("-") in capsys.readouterr().err
