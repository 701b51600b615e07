"""iLRG where its estimates of every class's features are exact."""

import torch
from torch import nn

from attacks.labels.alr import alr
from attacks.labels.ilrg import ilrg
from tests.attacks.labels.conftest import N, Small, constant
from victims.modules import build

LABELS = [0] * 9 + [1] * 4 + [2]  # classes 3 to 6 are not in the batch


def separated():
    """Features are the pixels. An image e_c of class c is taken for c or for classes that are not in the batch, never
    for another one of the batch: then row i of the gradient is of the images of class i alone. That they share the
    classes they are taken for leaves one solution."""
    logits = torch.full((6, N), -1.0)
    logits[:3, :3] = -40
    logits[torch.arange(3), torch.arange(3)] = torch.tensor([0.0, 1.0, -1.0])
    logits[:, 3] = 0.5
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, N))
    with torch.no_grad():
        net[1].weight.copy_(logits.T)
        net[1].bias.zero_()
    return net


def test_it_is_exact_where_images_of_a_class_are_alike_and_classes_are_apart(observe):
    images = torch.eye(6, dtype=torch.float64)[LABELS].view(-1, 1, 2, 3)
    observation = observe(LABELS, separated(), images=images)
    assert ilrg(observation).tolist() == LABELS
    assert alr(observation).tolist() != LABELS  # no dummy image tells where these are


def test_it_is_exact_where_all_features_are_alike(observe):
    for seed in range(3):
        assert ilrg(observe(LABELS, constant(build(Small, seed=seed)))).tolist() == LABELS
