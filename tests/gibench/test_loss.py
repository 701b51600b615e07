"""The client's own loss and soft labels, in Python."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

import gibench
from victims.data.photos import Photos
from victims.errors import Notice
from victims.models.lenet import LeNet
from victims.modules import build

LABELS = {"classes": torch.tensor([3, 1, 3]), "mixed": 0.7 * torch.eye(10)[[3, 1, 3]] + 0.3 * torch.eye(10)[[1, 3, 3]]}


@pytest.fixture
def images():
    return Photos(split="tune", size=16).batch((3, 50, 90))[0]


@pytest.fixture
def model():
    return build(LeNet, image_shape=(3, 16, 16), num_classes=10, seed=0)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss(torch.arange(1.0, 11), label_smoothing=0.1)])
def test_the_update_is_that_of_a_training_step_with_this_loss(labels, loss, images, model):
    observation = gibench.capture(model, images, labels, loss=loss)
    (cross_entropy if isinstance(loss, str) else loss)(model(images), labels).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(observation.update[name], p.grad)


def test_given_soft_labels_are_those_of_the_batch_in_an_order_of_their_own(images, model):
    given = gibench.capture(model, images, LABELS["mixed"]).knowledge.labels
    assert sorted(given.tolist()) == given.tolist() == sorted(LABELS["mixed"].tolist())


@pytest.mark.parametrize("method", ["ig", "dlg"])
@pytest.mark.parametrize("loss", ["cross_entropy", "label_smoothing:0.1", "bce", "focal:2"])
def test_an_attack_matches_soft_labels_under_every_loss(method, loss, images, model):
    observation = gibench.capture(model, images[:1], LABELS["mixed"][:1], loss=loss)
    found = gibench.attack(method, observation, steps=40, restarts=1)
    start = gibench.attack(method, observation, steps=1, restarts=1)
    assert found.cost < 0.5 * start.cost


def test_a_loss_of_classes_alone_is_refused_to_an_attack_that_searches_probabilities(images, model):
    def of_classes(logits, labels):
        return -logits.log_softmax(1).gather(1, labels[:, None]).mean()

    observation = gibench.capture(model, images, LABELS["classes"], loss=of_classes)
    assert gibench.attack("ig", observation, steps=2, restarts=1).cost.isfinite()
    with pytest.raises(gibench.InputError, match="loss of_classes cannot be used on 10 logits with probabilities"):
        gibench.attack("dlg", observation, steps=2, restarts=1)


def test_closed_forms_of_the_logistic_loss_refuse_another(images):
    model = build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 1, bias=False)), seed=0).double()

    def hinge(logits, labels):
        return (1 - logits.squeeze(1) * (2.0 * (labels % 2) - 1)).square().mean()

    observation = gibench.capture(model, images[:1].double(), torch.tensor([1]), loss=hinge)
    with pytest.raises(gibench.InputError, match="R-GAP solves the logistic loss of one logit, not hinge"):
        gibench.attack("rgap", observation)


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (torch.full((3, 10), 0.2), "sum to 1"),
        (one_hot(torch.tensor([1, 2, 3]), 7).float(), "7 probabilities each; the model has 10 classes"),
        (torch.ones(2, 10) / 10, "3 rows of probabilities"),
        (torch.tensor([0.1, 0.2, 0.7]), "3 integers"),
        (torch.tensor([[2.0, -1.0, *[0.0] * 8]] * 3), "probabilities"),
    ],
)
def test_what_are_no_labels_is_refused_in_one_line(labels, why, images, model):
    with pytest.raises(gibench.InputError, match=why) as refusal:
        gibench.capture(model, images, labels)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), nn.MSELoss(), lambda z, t: (z - t).abs().mean()])
def test_a_loss_of_probabilities_alone_is_tried_on_probabilities(loss, images, model):
    observation = gibench.capture(model, images, LABELS["mixed"], loss=loss)
    loss(model(images), LABELS["mixed"]).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(observation.update[name], p.grad)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)  # none says that the victim cannot be run
        curve = gibench.attack("ig", observation, steps=4, restarts=2).curve
    assert curve[-1][1] < curve[0][1]


def failing(logits, labels):
    raise ValueError("no such labels")


def constant(logits, labels):
    return 0 * cross_entropy(logits, labels) + 1


@pytest.mark.parametrize(("loss", "why"), [(failing, "no such labels"), (constant, "its gradient is zero")])
def test_what_is_wrong_with_a_loss_is_not_said_of_the_model(loss, why, images, model):
    with pytest.raises(gibench.InputError, match=f"^the loss {loss.__name__} cannot be used.*{why}"):
        gibench.capture(model, images, LABELS["classes"], loss=loss)


class Counting(nn.Module):
    """Is another function in every call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("prior", torch.zeros(10))
        self.calls = 0

    def forward(self, logits, labels):
        self.calls += 1
        self.prior.lerp_(logits.detach().softmax(1).mean(0), 0.5)
        return self.calls * cross_entropy(logits + self.prior, labels)


def test_what_a_loss_remembers_begins_anew_as_in_the_first_step_of_training(images, model):
    loss = Counting()
    observation = gibench.capture(model, images, LABELS["classes"], loss=loss)
    assert loss.calls == 0
    Counting()(model(images), LABELS["classes"]).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(observation.update[name], p.grad)
    assert gibench.attack("ig", observation, steps=2, restarts=1).cost.isfinite()
