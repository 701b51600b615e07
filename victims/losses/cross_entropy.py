"""Cross-entropy."""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from victims.losses.base import Loss, probabilities


class CrossEntropy(Loss):
    """Mean cross-entropy; a model with one logit separates odd classes from even ones, by the logistic loss."""

    examples = ("cross_entropy",)
    signs = True
    smoothing = 0.0

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        if logits.shape[-1] > 1:
            return cross_entropy(logits, targets)
        return binary_cross_entropy_with_logits(logits, probabilities(targets, logits))
