"""Binary cross-entropy of every class by itself."""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from victims.losses.base import Loss, probabilities


class BCE(Loss):
    """The mean over images and classes of the logistic loss of every logit, with a one-hot target.

    A model with one logit separates odd classes from even ones.
    """

    examples = ("bce",)
    signs = True

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(logits, probabilities(targets, logits))
