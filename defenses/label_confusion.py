"""Label confusion: Jeon et al., *Gradient Inversion with Generative Image Prior* (GIAS), NeurIPS 2021, appendix F."""

from defenses.base import Defense
from victims.errors import InputError
from victims.observation import Transform
from victims.victim import Gradient, Victim


class LabelConfusion(Defense):
    """Every batch has the same number of different labels, fewer than images.

    The images are divided among the labels as evenly as possible, because then there are most ways to assign the labels
    to them, B! / (n_1! ... n_N!). The cost: a batch is no longer drawn at random, so its gradient is not an unbiased
    estimate over the client's classes, and the client needs enough images of each class.
    """

    examples = ("label_confusion:1", "label_confusion:2")
    least_images = 2

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
            InputError: there are not fewer labels than images.
        """
        if self.labels >= max(batch_size, 2):  # one image has one label anyway; see `least_images`
            raise InputError(
                f"label_confusion:{self.labels} needs more than {self.labels} images, and the batch has {batch_size}; "
                "give a larger --batch, or fewer labels."
            )
        images, more = divmod(batch_size, self.labels)
        return [images + 1] * more + [images] * (self.labels - more)

    @staticmethod
    def estimate(received: Gradient, victim: Victim) -> Transform:
        """The gradient is not changed. An attacker adapts by its label method: `alr` does not need distinct labels."""
        return lambda gradient: gradient
