"""Every model of the suite, new ones too: shapes, and its gradient against plain autograd."""

import warnings

import pytest
import torch
from torch import nn

from attacks.engine.probe import Probe, vectorizes
from benchmark.check.victim import captured_and_dummy_gradients_are_those_of_plain_autograd, its_last_layer_is_linear
from benchmark.registry import registered
from victims.batch_norm import batch_norms
from victims.classifier import classifiers
from victims.client import calibrate
from victims.data.photos import Photos
from victims.errors import InputError, Notice
from victims.modules import build
from victims.victim import Victim

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
    its_last_layer_is_linear(MODELS[name])


def test_an_activation_after_the_logit_is_no_classifier():
    with pytest.raises(InputError, match="act3"):
        classifiers(make_one("fcn3_leaky", 32), (3, 32, 32))


@each_gradient
@each_mode
def test_captured_and_dummy_gradients_are_those_of_plain_autograd(name, training):
    size = NEEDS.get(name, 16)
    if training and not batch_norms(make_one(name, size)):
        pytest.skip("no batch norm: as in eval mode")
    captured_and_dummy_gradients_are_those_of_plain_autograd(MODELS[name], training, size)


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
