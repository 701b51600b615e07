"""The networks of LTI and FGLA against loops, and which updates an inverter refuses."""

import itertools
from dataclasses import replace

import pytest
import torch

from priors import weights
from priors.by_name import find
from priors.fgla import FGLA
from priors.inverters import signature
from priors.lti import LTI
from tests.attacks.normed import Normed
from victims.client import LocalTraining
from victims.errors import InputError
from victims.losses.label_smoothing import LabelSmoothing
from victims.models.convnet import ConvNet
from victims.modules import build
from victims.victim import Victim, gradient

SETTING = {"data": "photos", "victim": "lenet", "batch": "3", "defense": "sparsification:0.5"}


def fitting(observation, **options):
    """LTI's network for the victim of an observation, untrained."""
    entries = [g.numel() for g in observation.update.values()]
    made = {"signature": signature(observation.victim, observation.image_shape), "image_shape": (3, 32, 32)}
    return build(LTI, seed=0, setting=SETTING, batch=3, entries=entries, width=4, **{**made, **options})


def stacked(*observations):
    return {name: torch.stack([o.update[name] for o in observations]) for name in observations[0].update}


# LTI.


def test_a_hashed_update_is_the_sum_of_its_entries_with_signs(capture):
    observation = capture().observation
    network = fitting(observation, hashed=50)
    network.prepare(stacked(observation), None)
    read = network.read(stacked(observation), None)[0]
    draws = torch.Generator().manual_seed(0)
    entries = sum(network.entries)
    place, sign = torch.randint(50, (entries,), generator=draws), torch.randint(2, (entries,), generator=draws)
    expected, at = [0.0] * 50, 0
    for g in observation.update.values():
        size = float(g.double().square().mean().sqrt())
        for entry in g.flatten().tolist():
            expected[place[at]] += (2 * int(sign[at]) - 1) * entry / size
            at += 1
    torch.testing.assert_close(read, torch.tensor(expected) * (50 / entries) ** 0.5, rtol=1e-3, atol=1e-4)


def test_without_hashing_the_update_is_fed_as_it_was_received(capture):
    observation = capture().observation
    network = fitting(observation)
    read = network.read(stacked(observation), None)[0]
    assert torch.equal(read, torch.cat([g.flatten() for g in observation.update.values()]))
    assert (read == 0).float().mean() > 0.45  # what sparsification left out stays zero


def test_errors_are_those_of_the_best_assignment(capture):
    images, truth = (torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    network = fitting(capture().observation)
    best = [
        min(float((x[list(order)] - t).square().mean()) for order in itertools.permutations(range(3)))
        for x, t in zip(images, truth, strict=True)
    ]
    assert float(network.errors(images, truth).mean()) == pytest.approx(sum(best) / 2, rel=1e-5)
    assert float(network.errors(truth[:, [1, 2, 0]], truth).max()) == 0  # a 3-cycle


# FGLA.


def decoder(observation, features):
    made = {"signature": signature(observation.victim, observation.image_shape), "image_shape": (3, 32, 32)}
    return build(FGLA, seed=0, setting=SETTING, batch=3, classifier="classifier", features=features, width=8, **made)


@pytest.fixture
def undefended(capture):
    """Three images of distinct labels, their features, and FGLA's network."""
    task = capture(rate=None, dtype=torch.float64, model=ConvNet)
    labels, order = task.labels.sort()
    assert len(labels.unique()) == 3
    victim, x = task.observation.victim, task.images[order].double()
    features = victim.model.body(victim.normalize(x)).flatten(1)
    return task.observation, features, labels, decoder(task.observation, 4096).double()


def test_features_are_read_from_the_rows_of_their_labels(undefended):
    observation, f, labels, network = undefended
    dW, db = observation.update["classifier.weight"], observation.update["classifier.bias"]
    absent = [k for k in range(10) if k not in labels.tolist()]
    o_W = sum(dW[k] for k in absent) / len(absent) * 2 / 3
    o_b = sum(float(db[k]) for k in absent) / len(absent) * 2 / 3
    expected = torch.stack([(dW[y] - o_W) / (float(db[y]) - o_b) for y in labels])
    read = network.read(stacked(observation), labels[None])[0]
    torch.testing.assert_close(read, expected)
    raw = torch.stack([dW[y] / db[y] for y in labels])
    assert (read - f).norm() < 0.7 * (raw - f).norm()  # what the absent classes are for


@pytest.mark.parametrize("row", ["dW is zero too", "dW is not"])
def test_a_label_without_a_bias_gradient_has_the_feature_0(undefended, row):
    """0 / 0 or x / 0, as sparsification leaves them; the other images' features stay what they were."""
    observation, _, labels, network = undefended
    update, y = stacked(observation), labels.tolist()
    absent = [k for k in range(10) if k not in y]
    update["classifier.weight"][0, absent] = update["classifier.bias"][0, absent] = 0
    before = network.read(update, labels[None])[0]
    update["classifier.bias"][0, y[1]] = 0
    if row == "dW is zero too":
        update["classifier.weight"][0, y[1]] = 0
    read = network.read(update, labels[None])[0]
    assert not read[1].any()
    assert torch.equal(read[[0, 2]], before[[0, 2]])
    network.prepare(update, labels[None])
    assert network.mean.isfinite().all()
    assert network.std.isfinite().all()


def test_features_enter_the_decoder_with_mean_0_and_deviation_1(undefended):
    observation, _, labels, network = undefended
    entered = []
    network.body.register_forward_pre_hook(lambda _, given: entered.append(given[0].flatten(1)))
    network.prepare(stacked(observation), labels[None])
    network.decode(network.read(stacked(observation), labels[None]))
    live = network.std > 1e-6  # features that are alike in all images stay so
    assert live.sum() > 100
    torch.testing.assert_close(entered[0].mean(0), torch.zeros(4096).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(entered[0].std(0)[live], torch.ones(int(live.sum())).double())


def test_with_one_image_its_feature_is_exact(capture):
    task = capture((3,), rate=None, dtype=torch.float64)
    network = decoder(task.observation, 768).double()
    network.batch = 1
    victim = task.observation.victim
    f = victim.model.body(victim.normalize(task.images.double())).flatten(1)
    torch.testing.assert_close(network.read(stacked(task.observation), task.labels[None])[0], f)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 20, 36)])
def test_the_decoder_makes_images_of_any_shape(capture, shape):
    network = build(
        FGLA, seed=0, setting=SETTING, signature=[], batch=2, image_shape=shape, classifier="c", features=7, width=8
    )
    images = network.decode(torch.randn(4, 2, 7))
    assert images.shape == (4, 2, *shape)
    assert 0 <= float(images.detach().min()) <= float(images.detach().max()) <= 1


# One victim.


def test_an_inverter_takes_the_updates_of_its_victim_in_any_precision(capture):
    network = fitting(capture().observation)
    network.check(capture((8, 30, 77)).observation)
    network.double().check(capture(dtype=torch.float64).observation)


def test_a_gradient_that_is_zero_but_for_rounding_tells_no_victim(capture):
    """That of a bias before batch norm in train mode."""
    observation, exact = (
        capture(model=Normed, training=True, dtype=dtype).observation for dtype in (torch.float32, torch.float64)
    )
    network = fitting(observation)
    norms = list(zip(network.signature, signature(exact.victim, (3, 32, 32)), strict=True))
    assert any(abs(rounded - right) > 0.5 * right for rounded, right in norms)
    network.double().check(exact)


def test_a_victim_is_told_by_its_weights_loss_mode_and_preprocessing(capture):
    observation = capture().observation
    network, model = fitting(observation), observation.victim.model
    mean, std = (0.469, 0.378, 0.331), (0.309, 0.245, 0.250)
    others = {
        "weights": Victim(build(type(model), seed=1, image_shape=(3, 32, 32), num_classes=10), mean=mean, std=std),
        "model": Victim(build(ConvNet, seed=0, image_shape=(3, 32, 32), num_classes=10), mean=mean, std=std),
        "loss": Victim(model.requires_grad_(), mean=mean, std=std, loss=LabelSmoothing(0.3)),
        "preprocessing": Victim(model.requires_grad_(), mean=(0.5,) * 3, std=(0.5,) * 3),
    }
    for what, victim in others.items():
        cure = (
            "leave --loss out" if what == "loss" else "run with --data photos --victim lenet and no training.*or train"
        )
        with pytest.raises(InputError, match=cure) as no:
            network.check(replace(observation, victim=victim))
        assert not any(text in str(no.value) for text in ("\n", "--batch", "--defense")), what  # those are as they were


CURES = {
    "batch": "batches of 3, not 2; run with --batch 3, or train one by `prior train-inverter`",
    "size": "images of 3x32x32; run with --data photos, or train one by `prior train-inverter`",
    "local": "leave --lr out",
}


@pytest.mark.parametrize("other", CURES)
def test_updates_of_another_kind_are_refused(capture, other):
    network = fitting(capture().observation)
    observation = capture((3, 50) if other == "batch" else (3, 50, 90), size=40 if other == "size" else 32).observation
    if other == "local":
        local = LocalTraining(lr=0.1)
        observation = replace(observation, knowledge=replace(observation.knowledge, local=local))
    with pytest.raises(InputError, match=CURES[other]):
        network.check(observation)


# Files.


def test_what_is_saved_in_half_precision_is_read_again(capture, tmp_path):
    observation = capture().observation
    network = fitting(observation, hashed=50)
    network.prepare(stacked(observation), None)
    network.trained_on, network.training_seconds = "nothing", 12.5
    options = {"setting": SETTING, "signature": network.signature, "batch": 3, "image_shape": [3, 32, 32]}
    options |= {"entries": network.entries, "width": 4, "hashed": 50}
    expected = network(stacked(observation), observation.knowledge.labels[None])
    network.body.half()
    weights.save(network, tmp_path / "lti.safetensors", architecture="lti", options=options, command="none")
    again = weights.load(tmp_path / "lti.safetensors")
    assert again.training_seconds == 12.5
    again.check(observation)
    found = again(stacked(observation), observation.knowledge.labels[None])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)


def test_an_untrained_inverter_is_refused_in_one_line(tmp_path):
    for spec in ("lti", "fgla", "lti:32"):
        with pytest.raises(InputError, match="prior train-inverter"):
            find(spec, tmp_path, size=32, seed=0)


def test_gradients_of_other_images_do_not_change_the_signature(capture):
    victim = capture().observation.victim
    before = signature(victim, (3, 32, 32))
    gradient(victim, torch.randn(2, 3, 32, 32), torch.tensor([3, 4]))
    assert signature(victim, (3, 32, 32)) == before
