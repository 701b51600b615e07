"""Everything that the attacker gets."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from victims.client import LocalTraining
from victims.errors import InputError
from victims.victim import Gradient, Statistics, Victim

Transform = Callable[[Gradient], Gradient]
"""Maps dummy gradients to what the client would have sent; every tensor is (R, *shape). Tensors that it
leaves out are not matched."""

Estimate = Callable[[Gradient, Victim], Transform]
"""Builds a `Transform` from the received updates, every tensor (R, *shape), and the victim alone."""


@dataclass(frozen=True)
class Knowledge:
    """What the attacker is declared to know besides victim and update.

    Attributes:
        labels: (B,) the batch's labels as a sorted multiset, (B, K) of probabilities, or None if they are not given.
        estimate: builds the surrogate of the defense for an attacker who knows *which* defense was used, never its
            parameters; None for a non-adaptive attacker.
        statistics: of the batch, for the victim's batch-norm layers, at the attacker's level; None if not given.
        local: how the clients trained, under FedAvg; None under FedSGD. Without a learning rate the scale of the update
            is not known. The order of the batch is not part of it, so the attacker does not know which labels shared a
            mini-batch.
        decayed: whether the defense changed the update of local training together with its weight decay. Then
            `estimate` adds the decay before it does what the defense does.
    """

    labels: Tensor | None = None
    estimate: Estimate | None = None
    statistics: Statistics | None = None
    local: LocalTraining | None = None
    decayed: bool = False


@dataclass(frozen=True)
class Observation:
    """One captured update. No image of the batch is reachable from it.

    Attributes:
        task: the stable id of the task.
        victim: model, weights, mode, preprocessing.
        update: what the client sent, after its defense: a gradient, or under FedAvg theta_0 - theta_T.
        image_shape: (C, H, W).
    """

    task: str
    victim: Victim
    update: Gradient
    batch_size: int
    image_shape: tuple[int, int, int]
    num_classes: int
    knowledge: Knowledge

    def gradient(self) -> Gradient:
        """The update in units of a gradient: the update itself, or after local training (theta_0 - theta_T) / (lr T).

        This is the average gradient approximation (IGIMS, eq. 12). Local momentum and weight decay are known, and taken
        out (see `LocalTraining.as_gradient`); Adam's steps are no gradients, and stay what they are. Weight decay stays
        in where a defense changed it too, for nobody knows how much of it is left: clipping makes it shorter. If the
        attacker does not know lr, it is the update itself, correct up to a factor, with weight decay in it.
        """
        local = self.knowledge.local
        if local is None or local.lr is None:
            return self.update
        moved = local.lr * local.steps(self.batch_size)
        mean = {name: difference / moved for name, difference in self.update.items()}
        return local.as_gradient(mean, None if self.knowledge.decayed else self.victim.parameters, self.batch_size)

    def require_labels(self, who: str) -> None:
        """
        Args:
            who: the attack that needs to know the labels of the batch.

        Raises:
            InputError: they are not given.
        """
        if self.knowledge.labels is None:
            raise InputError(
                f"{who} needs to know the batch's labels, and this observation declares none; run with --labels given."
            )
