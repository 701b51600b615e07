"""Every model of the suite, new ones too: shapes, and its gradient against plain autograd."""

import warnings
from copy import deepcopy

import pytest
import torch
from torch import nn

from attacks.engine.gradients import victim_gradients
from attacks.engine.probe import Probe, vectorizes
from benchmark.registry import registered
from victims.batch_norm import batch_norms
from victims.classifier import classifiers
from victims.client import calibrate
from victims.data.photos import Photos
from victims.errors import InputError, Notice
from victims.losses.cross_entropy import CrossEntropy
from victims.victim import Victim, build

MODELS = registered("victim")
NEEDS = {"alexnet": 32, "vgg16": 32, "sigmoid_resnet18_imagenet": 64}  # other models take 16 px, which is faster
SLOW = (
    *("convnet64", "densenet121", "resnet18", "resnet18_gn", "resnet34", "resnet50", "resnet56"),
    *("sigmoid_resnet18", "sigmoid_resnet18_imagenet", "sigmoid_vgg11", "vgg16"),
)

each_model = pytest.mark.parametrize("name", MODELS)
each_gradient = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in MODELS]
)
each_mode = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


def make_one(name, size):
    return build(MODELS[name], image_shape=(3, size, size), num_classes=10, seed=0)


@each_model
def test_logits_at_32_and_64_pixels(name):
    for size in (32, 64):
        with torch.no_grad():
            logits = make_one(name, size).eval()(torch.rand(1, 3, size, size))
        assert logits.shape in ((1, 10), (1, 1))  # R-GAP's models have one logit
        assert logits.isfinite().all()


@pytest.mark.parametrize("name", ["alexnet", "resnet20"])
def test_logits_at_224_pixels(name):
    with torch.no_grad():
        assert make_one(name, 224).eval()(torch.rand(1, 3, 224, 224)).shape == (1, 10)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "fcn3_leaky"])
def test_the_classifier_is_the_layer_that_makes_the_logits(name):
    victim, given = Victim(make_one(name, 32), mean=(0.5,) * 3, std=(0.2,) * 3), []
    layer = victim.model.get_submodule(*classifiers(victim.model, (3, 32, 32)))
    layer.register_forward_hook(lambda _m, _given, out: given.append(out))
    with torch.no_grad():
        logits = victim.logits(victim.parameters, torch.rand(1, 3, 32, 32))
    assert torch.equal(given[0], logits)


def test_an_activation_after_the_logit_is_no_classifier():
    with pytest.raises(InputError, match="act3"):
        classifiers(make_one("fcn3_leaky", 32), (3, 32, 32))


@each_gradient
@each_mode
def test_captured_and_dummy_gradients_are_those_of_plain_autograd(name, training, capture):
    size = NEEDS.get(name, 16)
    model = make_one(name, size).double()
    if training and not batch_norms(model):
        pytest.skip("no batch norm: as in eval mode")
    victim = Victim(model, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), training=training)
    task = capture((3, 50), size=size, victim=victim, rate=None)
    plain = deepcopy(model).train(training)
    images = (task.images.double() - victim.mean) / victim.std
    CrossEntropy()(plain(images), task.labels).backward()
    dummy = victim_gradients(victim, images[None], task.labels[None])
    near = {"rtol": 1e-7, "atol": 1e-9 * max(p.grad.abs().max().item() for p in plain.parameters())}
    for key, parameter in plain.named_parameters():
        torch.testing.assert_close(task.observation.update[key], parameter.grad, **near)
        torch.testing.assert_close(dummy[key][0], parameter.grad, **near)


@each_gradient
@each_mode
def test_runs_vectorized_and_twice_differentiated(name, training):
    size = NEEDS.get(name, 16)
    model = make_one(name, size)
    if training and not batch_norms(model):
        pytest.skip("no batch norm: as in eval mode")
    victim = Victim(model, mean=(0.5,) * 3, std=(0.2,) * 3, training=training)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        assert vectorizes(Probe(victim, (3, size, size), 2))


@each_gradient
def test_calibration_moves_running_statistics_and_nothing_else(name):
    size = NEEDS.get(name, 16)
    model, data = make_one(name, size), Photos(split="train", size=size)
    layers = list(batch_norms(model).values())
    if not layers:
        pytest.skip("no batch norm")
    before = {key: p.clone() for key, p in model.named_parameters()}
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    calibrate(model, data, data.preprocessing)
    assert all(torch.equal(p, before[key]) for key, p in model.named_parameters())
    assert all(layer.running_mean.abs().max() > 0 for layer in layers)
    images, _ = data.batch(range(len(data)))
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    with torch.no_grad():
        seen = first((images - mean) / std)
    torch.testing.assert_close(layers[0].running_mean, seen.mean((0, 2, 3)), rtol=0, atol=0.1 * seen.std().item())
