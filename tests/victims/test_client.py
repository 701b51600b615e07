"""FedSGD against closed forms and per-sample gradients, FedAvg against torch's own SGD."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from victims.client import LocalTraining, fed_avg, fed_sgd, known_statistics
from victims.errors import InputError
from victims.models.convnet import ConvNet
from victims.models.lenet import LeNet
from victims.modules import build
from victims.victim import Victim

MEAN, STD = (0.5, 0.4, 0.3), (0.3, 0.2, 0.25)
LABELS = torch.tensor([2, 0, 2, 4])


@pytest.fixture
def pixels():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_hand(pixels):
    """(x - mean) / std, written out by channel."""
    channels = [(pixels[:, c] - MEAN[c]) / STD[c] for c in range(3)]
    return torch.stack(channels, dim=1)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", [LeNet, ConvNet])
def test_fed_sgd_is_the_mean_of_per_sample_gradients(make, training, pixels):
    model = build(make, image_shape=(3, 16, 16), num_classes=5, seed=0).double()
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for image, label in zip(by_hand(pixels), LABELS, strict=True):
        model.zero_grad()
        cross_entropy(model(image[None]), label[None]).backward()
        for name, parameter in model.named_parameters():
            expected[name] += parameter.grad / len(LABELS)
    update = fed_sgd(Victim(model, mean=MEAN, std=STD, training=training), pixels, LABELS)
    assert list(update) == list(expected)
    for name in expected:
        torch.testing.assert_close(update[name], expected[name])


def test_fed_sgd_of_a_linear_model_is_the_closed_form(pixels):
    """Softmax regression: dL/db = mean(p - y), dL/dW = mean((p - y) x^T)."""
    model = build(lambda **_: nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), image_shape=(), num_classes=5, seed=0)
    victim = Victim(model.double(), mean=MEAN, std=STD)
    x = by_hand(pixels).flatten(1)
    logits = x @ victim.parameters["1.weight"].T + victim.parameters["1.bias"]
    error = (logits.exp() / logits.exp().sum(1, keepdim=True) - one_hot(LABELS, 5)) / 4
    update = fed_sgd(victim, pixels, LABELS)
    torch.testing.assert_close(update["1.bias"], error.sum(0))
    torch.testing.assert_close(update["1.weight"], error.T @ x)


def test_the_update_has_no_graph_to_the_images(pixels):
    victim = Victim(build(LeNet, image_shape=(3, 16, 16), num_classes=5, seed=0).double(), mean=MEAN, std=STD)
    update = fed_sgd(victim, pixels.requires_grad_(), LABELS)
    assert all(g.grad_fn is None and not g.requires_grad for g in update.values())


def test_the_order_of_the_batch_does_not_matter(pixels):
    victim = Victim(build(LeNet, image_shape=(3, 16, 16), num_classes=5, seed=0).double(), mean=MEAN, std=STD)
    order = torch.tensor([2, 3, 1, 0])
    one, other = fed_sgd(victim, pixels, LABELS), fed_sgd(victim, pixels[order], LABELS[order])
    for name in one:
        torch.testing.assert_close(one[name], other[name])


# FedAvg.


class Normed(nn.Sequential):
    """The smallest net with batch norm."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(196, 5))


def normed(**_):
    model = Normed()
    model[1].running_mean.uniform_(-0.5, 0.5)  # statistics that eval mode can be told by
    model[1].running_var.uniform_(0.5, 2)
    return model


def trained_by_torch(model, x, labels, *, training, lr, epochs, mini_batch):
    """The weights after a plain loop of torch's SGD on a copy."""
    model = copy.deepcopy(model).train(training)
    sgd = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        for at in range(0, len(x), mini_batch):
            sgd.zero_grad()
            cross_entropy(model(x[at : at + mini_batch]), labels[at : at + mini_batch]).backward()
            sgd.step()
    return {name: p.detach() for name, p in model.named_parameters()}


def exactly(update, expected):
    assert list(update) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(update[name], tensor, rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", [LeNet, normed])
@pytest.mark.parametrize(("clients", "epochs", "mini_batch"), [(1, 3, 2), (1, 2, 3), (2, 2, 2), (2, 3, 1), (4, 2, 1)])
def test_fed_avg_is_the_mean_of_what_torchs_sgd_does_at_every_client(
    make, training, clients, epochs, mini_batch, pixels
):
    model = build(make, image_shape=(3, 16, 16), num_classes=5, seed=0).double()
    victim = Victim(model, mean=MEAN, std=STD, training=training)
    local = LocalTraining(epochs=epochs, mini_batch=mini_batch, clients=clients, lr=0.3)
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for x, y in zip(by_hand(pixels).chunk(clients), LABELS.chunk(clients), strict=True):
        end = trained_by_torch(model, x, y, training=training, lr=0.3, epochs=epochs, mini_batch=mini_batch)
        for name, start in model.named_parameters():
            expected[name] += (start.detach() - end[name]) / clients
    exactly(fed_avg(victim, pixels, LABELS, local), expected)
    assert max(difference.abs().max() for difference in expected.values()) > 1e-3


@pytest.mark.parametrize("training", [False, True])
def test_one_step_of_one_client_on_its_whole_batch_is_lr_times_fed_sgd(training, pixels):
    victim = Victim(build(normed, seed=0).double(), mean=MEAN, std=STD, training=training)
    one = fed_sgd(victim, pixels, LABELS)
    for mini_batch in (None, 4, 64):
        update = fed_avg(victim, pixels, LABELS, LocalTraining(mini_batch=mini_batch, lr=0.02))
        exactly(update, {name: 0.02 * g for name, g in one.items()})


def test_one_step_of_several_clients_is_fed_sgd_on_the_batch_of_all(pixels):
    victim = Victim(build(normed, seed=0).double(), mean=MEAN, std=STD)
    update = fed_avg(victim, pixels, LABELS, LocalTraining(clients=2, lr=1.0))
    exactly(update, fed_sgd(victim, pixels, LABELS))


def test_several_clients_in_train_mode_normalize_by_their_own_batches(pixels):
    victim = Victim(build(normed, seed=0).double(), mean=MEAN, std=STD, training=True)
    update = fed_avg(victim, pixels, LABELS, LocalTraining(clients=2, lr=1.0))
    halves = [fed_sgd(victim, pixels[part], LABELS[part]) for part in (slice(2), slice(2, 4))]
    exactly(update, {name: (halves[0][name] + halves[1][name]) / 2 for name in update})
    whole = fed_sgd(victim, pixels, LABELS)
    assert (update["0.weight"] - whole["0.weight"]).norm() > 1e-2 * whole["0.weight"].norm()


def test_steps_lost_when_weights_are_rounded_never_reach_the_server(pixels):
    victim = Victim(build(LeNet, image_shape=(3, 16, 16), num_classes=5, seed=0), mean=MEAN, std=STD)
    update = fed_avg(victim, pixels.float(), LABELS, LocalTraining(lr=1e-12))
    assert not update["classifier.weight"].where(victim.parameters["classifier.weight"].abs() > 1e-2, 0).any()


def test_a_weight_difference_has_no_graph_to_the_images(pixels):
    victim = Victim(build(LeNet, image_shape=(3, 16, 16), num_classes=5, seed=0).double(), mean=MEAN, std=STD)
    update = fed_avg(victim, pixels.requires_grad_(), LABELS, LocalTraining(epochs=2, lr=0.1))
    assert all(d.grad_fn is None and not d.requires_grad for d in update.values())
    assert not any(p.requires_grad for p in victim.model.parameters())


@pytest.mark.parametrize("local", [None, LocalTraining(epochs=2, lr=0.1)], ids=["FedSGD", "FedAvg"])
def test_a_defense_that_keeps_its_graph_gives_none_to_the_server(pixels, local):
    """The graph of an update leads to the images."""
    victim = Victim(build(LeNet, image_shape=(3, 16, 16), num_classes=5, seed=0).double(), mean=MEAN, std=STD)

    def with_graph(theta, images, labels):
        theta = {name: p.detach().requires_grad_() for name, p in theta.items()}
        loss = victim.loss(theta, images.requires_grad_(), labels)
        return dict(zip(theta, torch.autograd.grad(loss, list(theta.values()), create_graph=True), strict=True))

    sent = fed_avg(victim, pixels, LABELS, local, with_graph) if local else fed_sgd(victim, pixels, LABELS, with_graph)
    assert all(d.grad_fn is None and not d.requires_grad for d in sent.values())


def test_every_client_steps_through_its_share_in_order_and_again_in_every_epoch():
    local = LocalTraining(epochs=2, mini_batch=2, clients=2, lr=1.0)
    first, second = [slice(0, 2), slice(2, 3)], [slice(3, 5), slice(5, 6)]
    assert local.schedule(6) == [first * 2, second * 2]
    assert local.steps(6) == 4
    assert LocalTraining(mini_batch=64).schedule(5) == [[slice(0, 5)]]


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"mini_batch": 0},
        {"clients": -1},
        {"lr": 0.0},
        {"lr": -0.1},
        {"lr": torch.inf},
        {"lr": torch.nan},
    ],
)
def test_invalid_local_training_is_refused_in_one_line(options):
    (name,) = options
    with pytest.raises(InputError, match=f"^{name} is") as error:
        LocalTraining(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("batch_size", [2, 4, 7])
def test_a_batch_without_equal_shares_for_the_clients_is_refused_in_one_line(batch_size):
    with pytest.raises(InputError, match=f"^{batch_size} images .* 3 clients") as error:
        LocalTraining(clients=3).schedule(batch_size)
    assert "\n" not in str(error.value)


def test_recovered_statistics_are_those_of_one_step_on_one_batch_or_refused(pixels):
    victim = Victim(build(normed, seed=0).double(), mean=MEAN, std=STD, training=True)
    recovered = known_statistics(victim, pixels, "recovered", LocalTraining(mini_batch=4, lr=0.1))
    exact = known_statistics(victim, pixels, "exact", LocalTraining(epochs=3, clients=2, lr=0.1))
    torch.testing.assert_close(recovered["1"], exact["1"])
    for several in ({"epochs": 2}, {"mini_batch": 2}, {"clients": 2}):
        with pytest.raises(InputError, match="local steps or clients") as error:
            known_statistics(victim, pixels, "recovered", LocalTraining(**several))
        assert "\n" not in str(error.value)
