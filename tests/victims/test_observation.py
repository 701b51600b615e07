"""The observation: it is frozen, and an attack that needs more knowledge is refused."""

from dataclasses import FrozenInstanceError, fields

import pytest
import torch
from torch import nn

from victims.errors import InputError
from victims.observation import Knowledge, Observation
from victims.victim import Victim


@pytest.fixture
def observe():
    """A function that makes an observation with some declared knowledge."""
    victim = Victim(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), mean=(0.5,) * 3, std=(0.5,) * 3)

    def make(**knowledge):
        return Observation("t0", victim, victim.parameters, 2, (3, 4, 4), 2, Knowledge(**knowledge))

    return make


def test_missing_labels_are_named_with_the_attack_in_one_line(observe):
    with pytest.raises(InputError) as error:
        observe().require_labels("gias")
    message = str(error.value)
    assert "gias" in message
    assert "labels" in message
    assert "\n" not in message


def test_declared_labels_are_enough(observe):
    observe(labels=torch.tensor([0, 1])).require_labels("gias")


def test_observation_and_knowledge_are_frozen(observe):
    observation = observe()
    for thing in (observation, observation.knowledge):
        for field in fields(thing):
            with pytest.raises(FrozenInstanceError):
                setattr(thing, field.name, None)
            with pytest.raises(FrozenInstanceError):
                delattr(thing, field.name)


def test_an_observation_has_no_place_for_the_private_batch(observe):
    with pytest.raises(FrozenInstanceError):
        observe().images = torch.zeros(2, 3, 4, 4)
    names = {field.name for field in fields(Observation)} | {field.name for field in fields(Knowledge)}
    assert not names & {"images", "batch", "data", "sample_ids"}
