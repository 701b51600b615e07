"""LLG* against a case by hand, and against dummy batches through autograd as the paper has them."""

import pytest
import torch

from attacks.labels.base import DUMMIES
from attacks.labels.llg import llg
from tests.attacks.labels.conftest import SHAPE, N, Small, constant
from victims.modules import build
from victims.victim import gradient


def undecided():
    """Two features, both 1 for any image, and p = 1/N."""
    net = constant(build(Small, features=2, seed=0), scale=0)
    with torch.no_grad():
        net[1].bias.fill_(1)
        net[3].bias.zero_()
    return net


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [4, 6, 6, 6], [1, 2, 3, 4]], ids=str)
def test_a_case_by_hand(labels, observe):
    """N = 7, B = 4: g_i = 2/7 - n_i/2, s = 2/7, m = 8/7 (-6/7 2) / 4 = -24/49: just above the true -1/2."""
    observation = observe(labels, undecided())
    counts = torch.bincount(torch.tensor(labels), minlength=N)
    torch.testing.assert_close(observation.update["3.weight"].sum(1), 2 / 7 - counts.double() / 2)
    assert llg(observation).tolist() == labels


def test_by_hand_where_the_update_is_written_down(observe):
    """One sum below zero: class 2 is found, then its -1.2 is worth two more, for -24/49 goes into it so often."""
    g = torch.tensor([0.3, 0.1, -1.0, 0.3, 0.0, 0.2, 0.2]) + 0.0
    observation = observe([0, 0, 0, 0], undecided())
    observation.update["3.weight"] = g.double()[:, None].expand(N, 2) / 2
    # g - s:  .01, -.19, -1.29, .01, -.29, -.09, -.09; 2 at once: -.80; 2 again: -.31; 2 again: .18; then 4
    assert llg(observation).tolist() == [2, 2, 2, 4]


def reference(observation):
    """Dummy batches labeled with one class each, their gradients by autograd, and the paper's loop."""
    victim, B = observation.victim, observation.batch_size
    classifier = list(observation.update)[-2]
    images = torch.randn(DUMMIES, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    sums = [
        gradient(victim, images, torch.full((DUMMIES,), i))[classifier].sum(1).tolist() for i in range(N)
    ]  # [label of the dummy batch][class]
    m = sum(sums[i][i] for i in range(N)) / N / B * (1 + 1 / N)
    s = [sum(sums[j][i] for j in range(N) if j != i) / (N - 1) for i in range(N)]
    g = observation.update[classifier].sum(1).tolist()
    found = []
    for i in range(N):
        if g[i] < 0:
            found.append(i)
            g[i] -= m
    g = [a - b for a, b in zip(g, s, strict=True)]
    while len(found) < B:
        i = g.index(min(g))
        found.append(i)
        g[i] -= m
    return sorted(found)


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_papers_loop_on_dummy_batches(seed, observe):
    labels = torch.randint(N, (25,), generator=torch.Generator().manual_seed(seed)).tolist()
    net = build(Small, seed=seed)
    with torch.no_grad():
        net[3].weight.mul_(4)  # decided enough for m and s to matter
    observation = observe(labels, net, seed=seed)
    assert llg(observation).tolist() == reference(observation)


def test_the_offset_matters(observe):
    """Classes that the model prefers have large sums even if they are in the batch."""
    labels = [0] * 5 + [1] * 3 + [2] * 2
    net = constant(build(Small, seed=0))
    with torch.no_grad():
        net[3].bias[0] += 2
    observation = observe(labels, net)
    assert llg(observation).tolist() == labels


def test_no_more_labels_than_images_where_many_sums_are_negative(observe):
    observation = observe([0, 1], undecided())
    observation.update["3.weight"] = -torch.arange(1.0, N + 1)[:, None].expand(N, 2).double()
    assert llg(observation).tolist() == [5, 6]
