"""Vanishing gradients: the threshold against float32's own error, and what the user is told."""

from functools import partial

import pytest
import torch
from torch import nn

from benchmark.registry import open_loss
from defenses.dp_sgd import DPSGD
from victims.client import fed_sgd
from victims.errors import InputError
from victims.losses.base import Own
from victims.models.lenet import LeNet
from victims.modules import build
from victims.rounds import Rounds
from victims.vanishing_gradients import vanishing
from victims.victim import Victim, gradient_at

PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


class Margin(nn.Module):
    """Softmax regression whose last logit, the certain one, is `margin` above the mean of the others."""

    def __init__(self, margin: float, classes: int = 10) -> None:
        super().__init__()
        self.linear = nn.Linear(48, classes)
        torch.manual_seed(0)
        nn.init.normal_(self.linear.weight, std=0.1)
        self.linear.bias.data = torch.zeros(classes).index_fill(0, torch.tensor([classes - 1]), margin)

    def forward(self, x):
        return self.linear(x.flatten(1))


def one_image():
    return torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([9])


def error_in_float32(margin):
    """Of the gradient of one image, relative to float64's."""
    images, labels = one_image()
    single, double = (
        fed_sgd(Victim(Margin(margin).to(dtype), **PLAIN), images.to(dtype), labels)
        for dtype in (torch.float32, torch.float64)
    )
    difference = sum((single[n].double() - g).square().sum() for n, g in double.items())
    return (difference / sum(g.square().sum() for g in double.values())).sqrt().item()


def doubt(margin):
    """1 - p of the label, written out in float64."""
    images, _ = one_image()
    odds = Margin(margin).double()(images.double()).exp()
    return (odds[0, :9].sum() / odds.sum()).item()


@pytest.mark.parametrize("margin", [0.0, 4.0, 8.0, 10.0, 14.0, 17.0])
def test_gradients_that_do_not_vanish_have_three_right_digits(margin):
    victim = Victim(Margin(margin), **PLAIN)
    if doubt(margin) >= 1000 * 2**-23:
        assert vanishing(victim, *one_image()) is None
        assert error_in_float32(margin) < 1e-3
    else:
        assert vanishing(victim, *one_image())
        assert error_in_float32(margin) > 1e-5


def test_the_cases_above_lie_on_both_sides():
    assert doubt(10.0) > 1000 * 2**-23 > doubt(14.0)
    assert error_in_float32(17.0) > 1e-2


def test_in_float64_the_gradient_of_the_same_image_does_not_vanish():
    images, labels = one_image()
    assert vanishing(Victim(Margin(17.0).double(), **PLAIN), images.double(), labels) is None


def test_the_message_is_one_line_and_counts_images():
    images, _ = one_image()
    said = vanishing(Victim(Margin(20.0), **PLAIN), images.expand(3, -1, -1, -1), torch.tensor([9, 2, 9]))
    assert "2 of 3 images" in said
    assert "float32" in said
    assert "\n" not in said


@pytest.mark.parametrize(("loss", "certain"), [("focal:2", True), ("label_smoothing:0.1", False)])
def test_what_counts_is_the_gradient_of_the_victims_loss(loss, certain):
    """At 1 - p = 1e-3 focal loss has derivative 1e-8; under smoothing a certain image still pulls at its logits."""
    images, labels = one_image()
    assert doubt(9.0) > 1000 * 2**-23
    assert not vanishing(Victim(Margin(9.0), **PLAIN), images, labels)
    assert bool(vanishing(Victim(Margin(9.0), **PLAIN, loss=open_loss(loss)), images, labels)) == certain


def test_an_untrained_victim_gives_no_message():
    victim = Victim(build(LeNet, image_shape=(3, 16, 16), num_classes=10, seed=0), **PLAIN)
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert vanishing(victim, images, torch.arange(4)) is None


def test_one_logit_and_several_rounds():
    """A single logit z has 1 - p = 1 / (1 + exp(z)) for odd classes; of several rounds one uncertain is enough."""
    images, labels = one_image()
    for margin, certain in ((30.0, True), (2.0, False)):
        single = Victim(Margin(margin, classes=1), **PLAIN)
        assert bool(vanishing(single, images, labels)) == certain
        assert not vanishing(single, images, torch.tensor([8]))
        rounds = Victim(Rounds([Margin(30.0), Margin(margin)]), **PLAIN)
        assert bool(vanishing(rounds, images, labels)) == certain


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_nothing_is_said(dtype):
    """A thousand roundings are more than any probability there: every image would be called certain."""
    images, labels = one_image()
    for margin in (0.0, 20.0):
        assert vanishing(Victim(Margin(margin).to(dtype), **PLAIN), images.to(dtype), labels) is None


def test_nothing_is_said_of_a_loss_that_takes_no_single_image():
    """As with `squeeze()`, which leaves no axis of one image. The update of the batch is as good as any."""
    loss = Own(lambda z, y: nn.functional.binary_cross_entropy_with_logits(z.squeeze(), y.float()))
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 1))
    victim, images, labels = Victim(net, **PLAIN, loss=loss), torch.rand(4, 3, 4, 4), torch.tensor([0, 1, 1, 0])
    assert vanishing(victim, images, labels) is None
    update = fed_sgd(victim, images, labels)
    nn.functional.binary_cross_entropy_with_logits(net(images)[:, 0], labels.float()).backward()
    torch.testing.assert_close(update["1.weight"], net[1].weight.grad)
    with pytest.raises(InputError, match=r"dp_sgd clips .* takes no single one"):
        fed_sgd(
            victim, images, labels, DPSGD(1.0, 0.0).gradient_fn(partial(gradient_at, victim), victim, torch.Generator())
        )
