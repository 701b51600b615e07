"""What the trial of a victim costs. What it says is tested where victims are made."""

import torch

from tests.computed import Computed
from victims.models.resnet18 import ResNet18
from victims.modules import build
from victims.trial import trial
from victims.victim import Victim


def test_large_images_pass_twice_and_are_differentiated_once():
    """With all that is differentiated twice on small images, it costs less than five passes."""
    shape = 2, 3, 128, 128
    model = build(ResNet18, image_shape=shape[1:], num_classes=10, seed=0)
    victim, given = (Victim(model, mean=(0.5,) * 3, std=(0.2,) * 3, as_given=flag) for flag in (False, True))
    with Computed() as one_pass, torch.no_grad():
        victim.logits({}, torch.rand(shape))
    with Computed() as tried:
        assert trial(victim, given, shape, "it", "", "") == 10
    assert tried.numbers < 5 * one_pass.numbers
