"""Small nets and their updates as an attacker gets them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from victims.client import fed_sgd
from victims.losses.base import Loss
from victims.modules import build
from victims.observation import Knowledge, Observation
from victims.victim import Gradient, Victim

N = 7  # classes
SHAPE = (1, 2, 3)


class Small(nn.Sequential):
    """Flatten, features by a linear layer and `activation`, linear classifier."""

    def __init__(self, features: int = 5, classes: int = N, bias: bool = True, activation: type[nn.Module] = nn.ReLU):
        super().__init__(nn.Flatten(), nn.Linear(6, features), activation(), nn.Linear(features, classes, bias=bias))


class Normed(nn.Sequential):
    """With batch norm in front of the features."""

    def __init__(self):
        super().__init__(nn.Conv2d(1, 5, 2), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(10, N))


@pytest.fixture
def observe() -> Callable[..., Observation]:
    """What the server sees of random images, or of those given, with `labels`; float64."""

    def make(
        labels: list[int] | None = None,
        net: nn.Module | None = None,
        *,
        images: Tensor | None = None,
        update: Gradient | None = None,
        training: bool = False,
        seed: int = 0,
        loss: Loss | None = None,
    ) -> Observation:
        labels = torch.tensor([3, 3, 5] if labels is None else labels)
        net = (net or build(Small, seed=seed)).double()
        victim = Victim(net, mean=(0.0,), std=(1.0,), training=training, loss=loss)
        if images is None:
            images = torch.rand(len(labels), *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        update = update or fed_sgd(victim, images, labels)
        return Observation("t", victim, update, len(labels), tuple(images.shape[1:]), N, Knowledge())

    return make


def constant(net: Small, scale: float = 3.0) -> Small:
    """The same net with features that do not depend on the image, and a classifier that is far from undecided."""
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.abs_()
        net[3].weight.mul_(scale)
    return net
