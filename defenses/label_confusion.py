"""Batches whose labels are hard to tell: Jeon et al., *Gradient Inversion with Generative Image Prior* (GIAS), NeurIPS
2021, appendix F.
"""

from defenses.base import Defense
from victims.errors import InputError
from victims.observation import Transform
from victims.victim import Gradient, Victim


class LabelConfusion(Defense):
    """Every batch has the same number of different labels: fewer than images, and not too few.

    The images are shared out as evenly as can be, for then the labels n_1, ..., n_N can be given to them in the most
    ways, B! / (n_1! ... n_N!). A batch is no longer drawn at random, which costs the client a gradient that is fair to
    all its classes, and it must have enough images of each.
    """

    def __init__(self, labels: int) -> None:
        """
        Args:
            labels: N, different labels in a batch.

        Raises:
            InputError: there is less than one.
        """
        if labels < 1:
            raise InputError(f"label_confusion takes 1 label or more, not {labels}.")
        self.labels = labels

    def class_counts(self, batch_size: int) -> list[int]:
        """
        Raises:
            InputError: there are more labels than images.
        """
        if self.labels > batch_size:
            raise InputError(
                f"label_confusion is to put {self.labels} labels into a batch of {batch_size}; give at most as many "
                "labels as images."
            )
        images, more = divmod(batch_size, self.labels)
        return [images + 1] * more + [images] * (self.labels - more)

    @staticmethod
    def estimate(received: Gradient, victim: Victim) -> Transform:
        """Nothing is done to the gradient. An attacker adapts by how it reads labels: `alr` needs none distinct."""
        return lambda gradient: gradient
