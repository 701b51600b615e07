"""Cross-entropy with weights of the classes."""

import math

import torch
from torch import Tensor

from victims.errors import InputError
from victims.losses.base import Loss, probabilities


class ClassWeights(Loss):
    """The mean cross-entropy, weighted by the class: sum_i w_i l_i / sum_i w_i, as torch's `weight=`.

    With probabilities t as targets each class counts with w_c t_c. There torch divides by B in place of the sum of the
    weights, so that a one-hot target gives another loss than its class; take `torch.nn.CrossEntropyLoss` for that.
    """

    examples = ("class_weights:1,2,1,1,3,1,1,1,1,4",)
    signs = True

    def __init__(self, weights: str) -> None:
        """
        Args:
            weights: one for each class, with commas between them; above 0.

        Raises:
            InputError: they are no such numbers.
        """
        super().__init__()
        try:
            numbers = [float(weight) for weight in weights.split(",")]
        except ValueError:
            numbers = []
        if not numbers or not all(0 < weight < math.inf for weight in numbers):
            raise InputError(f"class_weights takes numbers above 0 with commas between them, not '{weights}'.")
        self.register_buffer("weights", torch.tensor(numbers, dtype=torch.float64))
        self.weights: Tensor

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """
        Raises:
            InputError: there is not one weight for each logit.
        """
        if len(self.weights) != logits.shape[-1]:
            raise InputError(
                f"class_weights has {len(self.weights)} weights; give one for each of the {logits.shape[-1]} logits."
            )
        weighted = probabilities(targets, logits) * self.weights.to(logits)
        return -(weighted * logits.log_softmax(-1)).sum() / weighted.sum()
