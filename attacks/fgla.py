"""FGLA: Xue et al., *Fast Generation-Based Gradient Leakage Attacks*."""

from typing import ClassVar

from attacks.engine.learned import Learned
from attacks.engine.preset import Preset
from priors.base import Prior
from priors.fgla import FGLA as Decoder
from victims.errors import InputError
from victims.observation import Observation


class FGLA(Learned):
    """Every image's feature from its label's row of the classifier's gradient, and a trained decoder.

    The labels of a batch are distinct, and a class is absent. The decoder fits one victim; `prior train-inverter`
    trains it.
    """

    name = "fgla"
    takes: ClassVar[type[Prior]] = Decoder
    default_prior = ""
    made_for = {"batches": "distinct"}
    presets = {
        "code": Preset(
            "the authors' code",
            assumed="the decoder is the prior, of `prior train-inverter`: trained on what is read of defended batches, "
            "standardized (the code: on raw features of single images); from one vector, with ReLU, without batch norm "
            "(the code: from 2048 x 7 x 7, of a victim without average pooling, with LeakyReLU and batch norm)",
            restarts=1,
        )
    }

    def check(self, observation: Observation) -> None:
        """Refuse labels that several images share or that are probabilities, and batches that have all classes."""
        super().check(observation)
        labels = observation.knowledge.labels
        assert labels is not None, "the base refuses it"
        if labels.is_floating_point():
            raise InputError(
                "fgla reads one class per image, and these labels are probabilities; give classes, or choose another "
                "--attack."
            )
        if len(labels.unique()) < len(labels):
            raise InputError(
                "fgla tells images apart by their labels, and some are alike; run with --batches distinct."
            )
        if 1 < len(labels) == observation.num_classes:
            raise InputError("fgla needs a class that is not in the batch; run with a smaller --batch.")
