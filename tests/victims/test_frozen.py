"""Parameters that the client does not train: they are not shared, not matched, and stay as they are."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gibench
from attacks.dlg import DLG
from attacks.engine.gradients import victim_gradients
from attacks.engine.probe import Probe, find_layers, vectorizes
from attacks.labels import find, names
from attacks.rgap import RGAP
from benchmark.registry import open_defense
from benchmark.tasks.capture import Client, client_update
from benchmark.tasks.capture import capture as capture_images
from victims import by_name
from victims.client import LocalTraining
from victims.errors import InputError
from victims.models.fcn3 import FCN3
from victims.modules import build
from victims.victim import Victim

SHAPE, CLASSES, B = (3, 8, 8), 5, 4
LABELS = torch.tensor([3, 1, 3, 0])


class Net(nn.Module):
    def __init__(self, *, image_shape=SHAPE, num_classes=CLASSES):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.neck = nn.Sequential(nn.Linear(64, 16), nn.Sigmoid())
        self.head = nn.Linear(16, num_classes)

    def forward(self, x):
        return self.head(self.neck(self.body(x)))


def body(net):
    net.body.requires_grad_(False)


def all_but_the_head(net):
    net.requires_grad_(False)
    net.head.requires_grad_()


def all_but_the_biases(net):
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))


def one_bias(net):
    net.head.bias.requires_grad_(False)


each_part = pytest.mark.parametrize("freeze", [body, all_but_the_head, all_but_the_biases, one_bias])


def frozen(freeze):
    net = build(Net, seed=0).double()
    freeze(net)
    return net


def victim_of(net, training=False):
    return Victim(net, mean=(0.5,) * 3, std=(0.2,) * 3, training=training)


@pytest.fixture
def images():
    return torch.rand(B, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def sent(net, images, defense=None, local=None, training=False):
    generator = torch.Generator().manual_seed(0)
    return client_update(victim_of(net, training), images, LABELS, generator=generator, defense=defense, local=local)


def trained_by_torch(net, images, steps, lr):
    """theta_0 - theta_T of what torch's own SGD trains."""
    client = copy.deepcopy(net).eval()
    trained = [parameter for parameter in client.parameters() if parameter.requires_grad]
    sgd = torch.optim.SGD(trained, lr=lr)
    for _ in range(steps):
        sgd.zero_grad()
        cross_entropy(client((images - 0.5) / 0.2), LABELS).backward()
        sgd.step()
    before = dict(net.named_parameters())
    return {n: (before[n] - p).detach() for n, p in client.named_parameters() if p.requires_grad}


@each_part
@pytest.mark.parametrize("steps", [1, 3])
def test_the_update_is_what_torch_trains(freeze, steps, images):
    net = frozen(freeze)
    update = sent(net, images, local=LocalTraining(lr=0.1, epochs=steps))
    expected = trained_by_torch(net, images, steps, 0.1)
    assert list(update) == list(expected)
    for name in expected:
        torch.testing.assert_close(update[name], expected[name], rtol=1e-8, atol=1e-12)
    gradient = sent(net, images)
    assert list(gradient) == list(expected)


@each_part
def test_every_path_gives_the_gradient_of_what_is_trained(freeze, images):
    net = frozen(freeze)
    victim = victim_of(net)
    x = victim.normalize(images).unflatten(0, (2, 2))
    y = LABELS.view(2, 2)
    plain = victim_gradients(victim, x, y, vectorized=False)
    assert list(plain) == [name for name, p in net.named_parameters() if p.requires_grad]
    paths = [victim_gradients(victim, x, y)]
    assert vectorizes(Probe(victim, SHAPE, 2))
    layers = find_layers(Probe(victim, SHAPE, 2))
    assert (layers is None) == (freeze in (all_but_the_biases, one_bias))
    if layers:
        paths.append(layers.gradient(x, y))
    for found in paths:
        assert list(found) == list(plain)
        for name, g in plain.items():
            torch.testing.assert_close(found[name], g, rtol=1e-8, atol=1e-12)
    if layers:
        products = layers.gradient(x, y).products(plain)
        for name, g in plain.items():
            torch.testing.assert_close(products[name][1], g.square().flatten(1).sum(1), rtol=1e-8, atol=1e-14)


def test_the_owners_model_keeps_its_flags(images):
    net = frozen(body)
    flags = [p.requires_grad for p in net.parameters()]
    victim_of(net)
    assert [p.requires_grad for p in net.parameters()] == flags


@pytest.mark.parametrize("name", ["noise:0.1", "clipping:1", "sparsification:0.5", "dp_sgd:1:0.1", "soteria:0.3"])
def test_a_defense_sends_nothing_of_frozen_parameters(name, images):
    net = frozen(body)
    assert list(sent(net, images, defense=open_defense(name))) == [
        n for n, p in net.named_parameters() if p.requires_grad
    ]


def test_an_attack_on_the_head_alone_matches_the_head_alone(images):
    observation = gibench.capture(frozen(all_but_the_head), images, LABELS)
    assert list(observation.update) == ["head.weight", "head.bias"]
    found = gibench.attack("ig", observation, steps=3, restarts=2)
    assert found.cost.isfinite().all()
    assert gibench.attack(DLG, observation, steps=2, restarts=1).cost.isfinite().all()


@pytest.mark.parametrize("name", names())
def test_labels_are_read_from_a_trained_classifier_or_refused(name, images):
    client = Client(give_labels=False)

    def observed(freeze, count):
        return capture_images(
            victim_of(frozen(freeze)), images[:count], LABELS[:count], client, task="t", num_classes=CLASSES
        )

    count = 1 if name == "idlg" else B
    assert len(find(name)(observed(all_but_the_head, count))) == count
    with pytest.raises(InputError, match=r"head\.weight, which is frozen"):
        find(name)(observed(all_but_the_biases, count))


def test_soteria_needs_a_trained_layer(images):
    with pytest.raises(
        InputError, match="'head' is frozen, so nothing of it is sent; choose another --defense, as it trains none"
    ):
        sent(frozen(all_but_the_biases), images, defense=open_defense("soteria:0.3"))


def test_rgap_needs_every_layer(images):
    net = build(FCN3, image_shape=SHAPE, num_classes=2, seed=0).double()
    next(net.parameters()).requires_grad_(False)
    observation = gibench.capture(net, images[:1], torch.tensor([1]))
    with pytest.raises(InputError, match="it is frozen"):
        RGAP().check(observation)


def test_a_defense_that_leaves_nothing_to_match_is_refused(images):
    observation = gibench.capture(frozen(all_but_the_head).float(), images.float(), LABELS, defense="precode:4")
    with pytest.raises(InputError, match="leaves nothing to match"):
        gibench.attack("ig", observation, steps=2, restarts=1)


def test_a_model_that_trains_nothing_is_refused(images):
    net = frozen(lambda net: net.requires_grad_(False))
    with pytest.raises(InputError, match="all 8 parameters of Net are frozen") as refused:
        gibench.capture(net, images, LABELS)
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="are frozen"):
        by_name.find("net", lambda _: lambda **_: net.float())(image_shape=SHAPE, num_classes=CLASSES)


def test_a_victim_counts_what_it_shares():
    assert victim_of(frozen(all_but_the_head)).parameter_counts() == (
        17 * CLASSES,
        sum(p.numel() for p in Net().parameters()),
    )
