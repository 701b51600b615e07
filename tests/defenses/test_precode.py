"""PRECODE's gradient against a bottleneck written by hand, and what the attacker does not match."""

from functools import partial
from math import log

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, linear

from attacks.engine.distances import cosine
from attacks.engine.gradients import GradientPaths, victim_gradients
from attacks.engine.objective import Objective
from attacks.engine.probe import Probe, vectorizes
from attacks.labels.alr import alr
from benchmark.registry import open_defense
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import Client, capture_task
from defenses.base import Chain
from defenses.precode import Bottleneck, Precode
from defenses.sparsification import Sparsification
from victims.classifier import classifiers
from victims.client import LocalTraining, fed_avg, fed_sgd
from victims.data.photos import Photos
from victims.errors import InputError
from victims.models.cnn6 import CNN6
from victims.models.convnet import ConvNet
from victims.models.lenet import LeNet
from victims.modules import build
from victims.observation import Knowledge, Observation
from victims.rounds import Rounds, by_round
from victims.victim import Victim, gradient, gradient_at

K, BETA, CLASSES = 6, 0.3, 10
PLAIN = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
LABELS = torch.tensor([3, 1, 3])
GUARDED = {f"classifier.{part}" for part in ("0.encoder.weight", "0.encoder.bias", "0.decoder.weight")}
GUARDED |= {f"classifier.{part}" for part in ("0.decoder.bias", "1.weight", "1.bias")}


def defended(seed=0, kind=LeNet):
    """In float64, with a bottleneck whose deviations are far from 1 and different from each other."""

    def make():
        return Precode(K, BETA).model(kind(image_shape=(3, 8, 8), num_classes=CLASSES), (3, 8, 8))

    return build(make, seed=seed).double()


@pytest.fixture
def victim():
    return Victim(defended(), **PLAIN)


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(victim, images, labels, noise):
    """Of LeNet with a bottleneck; images in [0, 1], noise (B, K)."""
    theta = {name: p.clone().requires_grad_() for name, p in victim.parameters.items()}
    convolutions = {name.removeprefix("body."): p for name, p in theta.items() if name.startswith("body.")}
    features = torch.func.functional_call(victim.model.body, convolutions, victim.normalize(images)).flatten(1)
    layers = ("classifier.0.encoder", "classifier.0.decoder", "classifier.1")
    encoder, decoder, last = ([theta[f"{layer}.weight"], theta[f"{layer}.bias"]] for layer in layers)
    statistics = linear(features, *encoder)
    posterior = Normal(statistics[:, :K], statistics[:, K:].exp().log1p())  # sigma = softplus(s)
    z = posterior.mean + posterior.stddev * noise
    divergence = kl_divergence(posterior, Normal(torch.zeros_like(z), torch.ones_like(z))).sum(1).mean()
    loss = cross_entropy(linear(linear(z, *decoder), *last), labels) + BETA * divergence / log(2)  # in bits
    return dict(zip(theta, torch.autograd.grad(loss, list(theta.values())), strict=True))


def all_close(actual, expected):
    assert list(actual) == list(expected)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], msg=lambda m, n=name: n + m)


def noisy(victim, seed=5):
    return Precode(K, BETA).gradient_fn(partial(gradient_at, victim), victim, torch.Generator().manual_seed(seed))


# On the client.


def test_the_client_computes_its_gradient_with_noise_of_every_image(victim, images):
    noise = torch.randn(3, K, generator=torch.Generator().manual_seed(5)).double()
    all_close(fed_sgd(victim, images, LABELS, noisy(victim)), by_hand(victim, images, LABELS, noise))


def test_others_compute_the_gradient_at_the_mean(victim, images):
    expected = by_hand(victim, images, LABELS, torch.zeros(3, K).double())
    all_close(gradient(victim, victim.normalize(images), LABELS), expected)
    assert vectorizes(Probe(victim, (3, 8, 8), 3))
    many = victim_gradients(victim, victim.normalize(images).expand(2, -1, -1, -1, -1), LABELS.expand(2, -1))
    all_close({name: g[1] for name, g in many.items()}, expected)


def test_every_local_step_has_noise_of_its_own_and_the_same_seed_the_same(victim, images):
    drawn = []

    def gradient_fn(theta, x, y):
        drawn.append(theta["classifier.0.noise"])
        return gradient_at(victim, theta, x, y)

    local = LocalTraining(lr=0.1, epochs=2, mini_batch=2)
    defense, draws = Precode(K, BETA), torch.Generator().manual_seed(5)
    update = fed_avg(victim, images, LABELS, local, defense.gradient_fn(gradient_fn, victim, draws))
    assert [tuple(noise.shape) for noise in drawn] == [(2, K), (1, K), (2, K), (1, K)]
    assert len(torch.cat(drawn).unique()) == 6 * K
    again = fed_avg(victim, images, LABELS, local, noisy(victim))
    assert all(torch.equal(update[name], again[name]) for name in victim.parameters)
    assert list(update) == list(victim.parameters)


def test_no_noise_stays_in_the_victim(victim, images):
    before = {name: tensor.clone() for name, tensor in victim.model.named_buffers()}
    fed_sgd(victim, images, LABELS, noisy(victim))
    after = dict(victim.model.named_buffers())
    assert list(before) == list(after)
    assert all(torch.equal(after[name], tensor) and not after[name].any() for name, tensor in before.items())


def test_the_update_of_a_task_is_the_same_again_and_hides_the_noise():
    data = Photos(split="tune", size=8)
    victim, client = Victim(defended(), **PLAIN), Client(defense=Precode(K, BETA))
    one, again, other = (capture_task(victim, data, Batch(task, (3,)), client).observation for task in "aab")
    assert list(one.update) == list(one.victim.parameters)
    assert all(torch.equal(one.update[name], again.update[name]) for name in one.update)
    assert not torch.equal(one.update["body.0.weight"], other.update["body.0.weight"])
    assert not one.victim.model.classifier[0].noise.any()
    assert alr(one).tolist() == [int(data.labels[3])]


# The model.


def test_only_the_classifier_is_renamed_and_the_weights_before_it_are_unchanged():
    model, plain = defended(), build(LeNet, image_shape=(3, 8, 8), num_classes=CLASSES, seed=0).double()
    names = [name for name, _ in model.named_parameters()]
    assert set(names) - GUARDED == {name for name, _ in plain.named_parameters()} - {
        "classifier.weight",
        "classifier.bias",
    }
    assert all(torch.equal(model.get_parameter(name), plain.get_parameter(name)) for name in set(names) - GUARDED)
    assert torch.equal(model.classifier[1].weight, plain.classifier.weight)


@pytest.mark.parametrize("kind", [LeNet, CNN6], ids=["a child", "the last of a chain"])
def test_the_classifier_is_found_with_its_input_features(kind, images):
    victim = Victim(defended(kind=kind), **PLAIN)
    seen = []
    layer = victim.model.get_submodule(*classifiers(victim.model, tuple(images.shape[1:])))
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    logits = victim.logits(victim.parameters, images)
    torch.testing.assert_close(linear(seen[0], layer.weight, layer.bias), logits)
    assert logits.shape == (3, 1 if kind is CNN6 else CLASSES)


def test_a_lone_linear_layer_is_wrapped_too():
    model = Precode(2, BETA).model(nn.Linear(4, 3), (1, 2, 4))
    assert model(torch.rand(5, 4)).shape == (5, 3)
    assert list(classifiers(model, (1, 2, 4))) == ["1"]


def test_one_logit_has_the_divergence_in_its_loss_too(images):
    victim = Victim(defended(kind=CNN6), **PLAIN)
    statistics = []
    encoder = next(m for m in victim.model.modules() if isinstance(m, Bottleneck)).encoder
    encoder.register_forward_hook(lambda _, given, out: statistics.append(out))
    loss = victim.loss(victim.parameters, images, LABELS)
    mu, sigma = statistics[0][:, :K], statistics[0][:, K:].exp().log1p()
    divergence = kl_divergence(Normal(mu, sigma), Normal(torch.zeros_like(mu), torch.ones_like(mu))).sum(1).mean()
    logits = victim.logits(victim.parameters, images)
    expected = binary_cross_entropy_with_logits(logits[:, 0], (LABELS % 2).double()) + BETA * divergence / log(2)
    torch.testing.assert_close(loss, expected)


def test_every_round_has_a_bottleneck_of_its_own(images):
    models = [defended(seed) for seed in (0, 1)]
    together = Victim(Rounds(models), **PLAIN)
    update = fed_sgd(together, images, LABELS, noisy(together))
    draws = torch.Generator().manual_seed(5)
    for model, part in zip(models, by_round(together, update), strict=True):
        noise = torch.randn(3, K, generator=draws).double()
        all_close(part, by_hand(Victim(model, **PLAIN), images, LABELS, noise))


# The attacker's surrogate.


def dummies(victim):
    draws = torch.Generator().manual_seed(2)
    return {
        name: torch.randn(2, *p.shape, generator=draws, dtype=p.dtype).requires_grad_()
        for name, p in victim.parameters.items()
    }


@pytest.mark.parametrize("rounds", [1, 2])
def test_estimate_leaves_out_the_bottleneck_and_the_layers_after_it(rounds):
    prefixes = [f"rounds.{t}." for t in range(rounds)] if rounds > 1 else [""]
    model = Rounds([defended(t) for t in range(rounds)]) if rounds > 1 else defended()
    victim = Victim(model, **PLAIN)
    dummy = dummies(victim)
    seen = Precode.estimate(dummy, victim)(dummy)
    assert dummy.keys() - seen.keys() == {prefix + name for prefix in prefixes for name in GUARDED}
    assert all(g is dummy[name] for name, g in seen.items())


def test_estimate_without_a_bottleneck_changes_nothing():
    victim = Victim(build(LeNet, image_shape=(3, 8, 8), num_classes=CLASSES, seed=0), **PLAIN)
    dummy = dummies(victim)
    assert all(g is dummy[name] for name, g in Precode.estimate(dummy, victim)(dummy).items())


def test_the_matched_layers_tell_the_image_from_others_and_the_whole_update_does_not():
    """Cosine distance to the update: another photograph's dummy gradient relative to the true one's."""
    data, defense = Photos(split="tune", size=16), Precode()
    model = build(lambda: defense.model(ConvNet(image_shape=(3, 16, 16), num_classes=CLASSES), (3, 16, 16)), seed=0)
    victim = Victim(model, mean=data.mean, std=data.std)
    images, labels = data.batch(range(0, 80, 10))
    gradient_fn = defense.gradient_fn(partial(gradient_at, victim), victim, torch.Generator().manual_seed(5))
    non_adaptive, adaptive = [], []
    for image, stranger, label in zip(images, images.roll(1, 0), labels, strict=True):
        received = stacked(fed_sgd(victim, image[None], label[None], gradient_fn))
        left = Precode.estimate(received, victim)
        near, far = (stacked(fed_sgd(victim, x[None], label[None])) for x in (image, stranger))
        non_adaptive.append(cosine(far, received) - cosine(near, received))
        adaptive.append(cosine(left(far), left(received)) - cosine(left(near), left(received)))
    assert torch.cat(adaptive).min() > 0
    assert torch.cat(adaptive).mean() > 10 * torch.cat(non_adaptive).mean().abs()


def stacked(update):
    return {name: g[None] for name, g in update.items()}


def test_tensors_that_the_surrogate_leaves_out_are_not_matched(images):
    victim = Victim(defended(), **PLAIN)
    received = fed_sgd(victim, images, LABELS)
    spoiled = {name: 7 * g if name in GUARDED else g for name, g in received.items()}
    knowledge = Knowledge(labels=LABELS, estimate=Precode().surrogate())
    seen = []
    for update in (received, spoiled):
        observation = Observation("t", victim, update, 3, tuple(images.shape[1:]), CLASSES, knowledge)
        objective = Objective([observation], cosine, GradientPaths(victim))
        seen.append(objective.cost(victim.normalize(1 - images)[None], LABELS[None]))
    assert seen[0] > 0.01
    assert torch.equal(*seen)


def test_a_chain_has_the_model_the_noise_and_the_zeros(images):
    chain = Chain([Precode(K, BETA), Sparsification(0.5)])
    victim = Victim(defended(), **PLAIN)
    gradient_fn = chain.gradient_fn(partial(gradient_at, victim), victim, torch.Generator().manual_seed(5))
    sent = chain(fed_sgd(victim, images, LABELS, gradient_fn), torch.Generator())
    noise = torch.randn(3, K, generator=torch.Generator().manual_seed(5)).double()
    all_close(sent, Sparsification(0.5)(by_hand(victim, images, LABELS, noise), torch.Generator()))


# Refusals.


def test_parameters_can_be_left_out():
    defense = open_defense("precode")
    assert (defense.size, defense.beta) == (256, 1e-3)
    defense = open_defense("precode:32:0.01")
    assert (defense.size, defense.beta) == (32, 0.01)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0", "1 unit or more, not 0"),
        ("8:-1", "beta of 0 or more, not -1.0"),
        ("8:nan", "finite number, not 'nan'"),
        ("8:inf", "finite number, not 'inf'"),
    ],
)
def test_bad_parameters_are_one_line(given, said):
    with pytest.raises(InputError, match=said) as error:
        open_defense(f"precode:{given}")
    assert "\n" not in str(error.value)


def test_a_model_without_a_linear_layer_is_refused():
    pooled = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match=r"has no linear layer, .* its logits come after '2' \(Flatten\)") as error:
        Precode().model(pooled, (3, 8, 8))
    assert "\n" not in str(error.value)
