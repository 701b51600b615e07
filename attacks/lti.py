"""Learning to Invert: Wu, Chen, Guo, Weinberger, *Learning To Invert*, UAI 2023."""

from typing import ClassVar

from attacks.engine.learned import Learned
from attacks.engine.preset import Preset
from priors.base import Prior
from priors.lti import LTI as Network


class LTI(Learned):
    """A perceptron that was trained on the updates of other images: one forward pass (Learning to Invert).

    It fits one victim, and learns what the defense leaves of its updates; `prior train-inverter` trains it. Its images
    have no order, while the matching cost takes them in that of the labels: only with one image is it a cost of theirs.
    """

    name = "lti"
    takes: ClassVar[type[Prior]] = Network
    default_prior = "lti-photos32"
    presets = {
        "paper": Preset(
            "the paper",
            assumed="the network is the prior, of two hidden layers, for LeNet 3000 wide for one image and "
            "10 000 for four",
            trained_by="prior train-inverter --width 3000 --hashed 0",
            restarts=1,
        )
    }
