"""The axes along which charts compare a defense's strengths."""

import pytest
import torch

from benchmark.registry import open_defense, registered
from benchmark.tasks.capture import client_update
from defenses.base import Defense

AXES = {
    "sparsification:0.9": {"share of the update that is not sent": 0.9},
    "noise:0.01": {"standard deviation of Gaussian noise": 0.01},
    "noise:0.01:laplacian": {"standard deviation of Laplacian noise": 0.01},
    "soteria:0.8": {"share of the features of the classifier that is pruned": 0.8},
    "soteria:0.8:fc": {"share of the features of fc that is pruned": 0.8},
    "soteria:0.8::0.1": {"share of all features (eps 0.1) of the classifier that is pruned": 0.8},
    "clipping:4": {},  # 0 would be the strongest
    "sparsification:0.9+noise:0.01": {},  # no single number
}


@pytest.mark.parametrize(("text", "axis"), AXES.items(), ids=AXES)
def test_a_defense_says_where_it_stands(text, axis):
    assert open_defense(text).axis == axis


def test_every_defense_with_an_axis_is_tested_here():
    own = {name for name, defense in registered("defense").items() if defense.axis is not Defense.axis}
    assert own == {text.split(":")[0] for text, axis in AXES.items() if axis}


@pytest.mark.parametrize("text", ["sparsification:0", "noise:0", "noise:0:laplacian", "soteria:0"])
def test_zero_on_the_axis_is_no_defense(text, capture):
    task, defense = capture(rate=None), open_defense(text)
    assert [*defense.axis.values()] == [0]
    sent = client_update(
        task.observation.victim, task.images, task.labels, generator=torch.Generator().manual_seed(0), defense=defense
    )
    assert all(torch.equal(sent[name], g) for name, g in task.observation.update.items())
