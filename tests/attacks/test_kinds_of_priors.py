"""An attack takes one kind of prior, and says in one line what it does with another."""

from dataclasses import replace

import pytest
import torch

from attacks.fgla import FGLA
from attacks.gias import GIAS
from attacks.gifd import GIFD
from benchmark.check.small import any_update
from benchmark.config import Config
from benchmark.registry import registered
from priors import names
from priors.base import Denoiser
from priors.fgla import FGLA as Decoder
from victims.errors import InputError


class Identity(Denoiser):
    def forward(self, images, sigma):
        return images


@pytest.mark.parametrize("method", [GIAS, GIFD])
def test_another_kind_of_prior_is_refused(method):
    with pytest.raises(
        InputError, match="of the kind generator; leave --prior out, or choose another than this denoiser"
    ):
        method(prior=Identity())


def test_a_denoiser_refuses_images_with_other_channels(capture):
    observation = capture().observation
    Identity().check(observation)
    gray = Identity()
    gray.channels = 1
    with pytest.raises(InputError, match=r"takes images with 1 channels, the task's have 3; run with --channels 1"):
        gray.check(observation)


def test_fgla_says_whether_labels_are_probabilities_or_alike(capture):
    observation = capture((3, 3, 50)).observation
    attack, classes = FGLA(prior=any_update(Decoder)), observation.knowledge.labels
    with pytest.raises(InputError, match="some are alike; run with --batches distinct"):
        attack.check(observation)
    mixed = replace(observation.knowledge, labels=torch.eye(10)[classes])
    with pytest.raises(InputError, match="one class per image, and these labels are probabilities; give classes"):
        attack.check(replace(observation, knowledge=mixed))


def test_fgla_refuses_a_batch_of_all_classes(capture):
    """The offsets are means over the classes that are absent: of none."""
    observation = replace(capture((3, 50, 90)).observation, num_classes=3)
    assert len(observation.knowledge.labels.unique()) == 3
    with pytest.raises(InputError, match="a class that is not in the batch; run with a smaller --batch"):
        FGLA(prior=any_update(Decoder)).check(observation)


TAKE_ONE = {name: each for name, each in registered("attack").items() if "prior" in each.needs}


@pytest.mark.parametrize("name", [name for name, each in TAKE_ONE.items() if each.default_prior])
def test_a_run_that_names_no_prior_takes_the_shipped_one_of_its_method(name):
    """It is the run that names these weights."""
    config = Config(attack=name)
    assert config.prior in names.shipped()
    assert config == Config(attack=name, prior=config.prior)
    assert isinstance(config.make_prior(), TAKE_ONE[name].takes)


@pytest.mark.parametrize("name", [name for name, each in TAKE_ONE.items() if not each.default_prior])
def test_a_method_without_a_shipped_prior_says_how_to_get_one(name):
    with pytest.raises(InputError, match=r"no shipped prior; give one with --prior, such as .* `prior train-inverter`"):
        Config(attack=name).make_prior()
