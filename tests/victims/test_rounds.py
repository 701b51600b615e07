"""Several rounds as one victim: it has the updates of all rounds, and the cost is their sum."""

import pytest
import torch

from attacks.engine.distances import cosine
from attacks.ig import IG
from benchmark.config import Config
from victims.client import fed_sgd
from victims.data.photos import Photos
from victims.errors import InputError
from victims.losses.base import Own
from victims.models.lenet import LeNet
from victims.modules import build
from victims.rounds import BATCH, LR, Rounds, by_round, models_of_rounds
from victims.victim import Victim


def make(seed):
    return build(LeNet, image_shape=(3, 32, 32), num_classes=10, seed=seed)


def rounds_of(data, *, seed, **options):
    return models_of_rounds(make(seed), make, data, data.preprocessing, seed=seed, **options)


@pytest.fixture
def data():
    return Photos(split="tune", size=32)


@pytest.fixture
def victims(data):
    """Three rounds as one, and each by itself."""
    models = rounds_of(data, rounds=3, between=0, seed=4)
    preprocessing = {"mean": data.mean, "std": data.std}
    return Victim(Rounds(models).double(), **preprocessing), [Victim(m.double(), **preprocessing) for m in models]


def test_the_update_is_that_of_every_round(victims, data):
    together, apart = victims
    images, labels = data.batch([3, 50])
    parts = by_round(together, fed_sgd(together, images.double(), labels))
    assert len(parts) == 3
    for part, victim in zip(parts, apart, strict=True):
        alone = fed_sgd(victim, images.double(), labels)
        assert part.keys() == alone.keys()
        for name, gradient in alone.items():
            torch.testing.assert_close(part[name], gradient)


def test_one_round_is_the_update_itself(victims):
    _, (first, *_) = victims
    update = first.parameters
    (part,) = by_round(first, update)
    assert part is update


def test_the_cost_is_the_sum_over_rounds_and_every_round_is_counted(victims, capture):
    together, apart = victims
    task = capture(victim=together, rate=None, dtype=torch.float64)
    attack = IG(steps=3, restarts=2)
    attack.begin([task.observation])
    x = attack.noise()
    labels = task.observation.knowledge.labels.expand(2, -1)
    expected = torch.zeros(2, dtype=torch.float64)
    for part, victim in zip(by_round(together, task.observation.update), apart, strict=True):
        for run in range(2):
            dummy = fed_sgd(victim, victim.denormalize(x[run]), labels[run])
            expected[run] += cosine(*({n: g[None] for n, g in u.items()} for u in (dummy, part)))[0]
    torch.testing.assert_close(attack.cost(x, labels), expected)
    assert attack.run([task.observation]).gradient_evaluations == 3 * 2 * 3


def test_rounds_have_new_weights_or_are_trained_further(data):
    anew, trained = (rounds_of(data, rounds=2, between=n, seed=4) for n in (0, 3))
    for models in (anew, trained):
        assert torch.equal(models[0].state_dict()["classifier.weight"], make(seed=4).state_dict()["classifier.weight"])
    assert torch.equal(anew[1].state_dict()["classifier.weight"], make(seed=5).state_dict()["classifier.weight"])
    moved = [trained[1].state_dict()[name] - w for name, w in trained[0].state_dict().items()]
    assert all(0 < step.abs().max() < 0.5 for step in moved)
    again = rounds_of(data, rounds=2, between=3, seed=4)
    assert all(torch.equal(w, again[1].state_dict()[name]) for name, w in trained[1].state_dict().items())


def test_training_continues_from_the_round_before_with_new_images(data):
    """The step to the third round is one of SGD from the second, on the second batch that is drawn."""
    _, second, third = rounds_of(data, rounds=3, between=1, seed=4)
    draws = torch.Generator().manual_seed(4)
    _, (images, labels) = data.augmented(BATCH, draws), data.augmented(BATCH, draws)
    loss = torch.nn.functional.cross_entropy(second(data.preprocessing.normalize(images)), labels)
    for (name, p), g in zip(
        second.named_parameters(), torch.autograd.grad(loss, list(second.parameters())), strict=True
    ):
        torch.testing.assert_close((p - third.get_parameter(name)) / LR, g, rtol=1e-2, atol=2e-5)


def test_other_clients_train_by_the_loss_of_the_run(data):
    """The first step of SGD is twice as long under twice the loss."""
    doubled = Own(lambda logits, labels: 2 * torch.nn.functional.cross_entropy(logits, labels))
    (start, plain), (_, twice) = (rounds_of(data, rounds=2, between=1, seed=0, loss=loss) for loss in (None, doubled))
    for name, p in start.named_parameters():
        moved = 2 * (plain.get_parameter(name) - p)
        torch.testing.assert_close(twice.get_parameter(name) - p, moved, rtol=1e-2, atol=1e-6)


def test_training_between_rounds_lowers_the_loss(data):
    train = Photos(split="train", size=32)
    first, last = rounds_of(train, rounds=2, between=60, seed=4)
    images, labels = train.batch(range(0, len(train), 5))
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    losses = [torch.nn.functional.cross_entropy(m((images - mean) / std), labels).item() for m in (first, last)]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("options", [{"rounds": 0}, {"rounds": 2, "between": -1}])
def test_invalid_counts_are_refused(options, data):
    with pytest.raises(InputError, match="rounds is") as error:
        Config(**options).make_victim(data)
    assert "\n" not in str(error.value)
