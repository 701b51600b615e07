"""Focal loss: Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017, equation 4."""

import math

import torch
from torch import Tensor

from victims.errors import InputError
from victims.losses.base import Loss, probabilities


class Focal(Loss):
    """Cross-entropy of several classes with the factor (1 - p)^gamma, which is small for certain images."""

    examples = ("focal:2",)
    signs = True

    def __init__(self, gamma: float) -> None:
        """
        Args:
            gamma: 0 or more; with 0 it is cross-entropy.

        Raises:
            InputError: it is negative or not finite.
        """
        super().__init__()
        if not 0 <= gamma < math.inf:
            raise InputError(f"focal takes a gamma of 0 or more, not {gamma}.")
        self.gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        log_p = logits.log_softmax(-1)
        doubt = -log_p.expm1().clamp_max(-torch.finfo(log_p.dtype).eps)  # 1 - p; a root has no derivative at 0
        return -(probabilities(targets, logits) * doubt.pow(self.gamma) * log_p).sum(-1).mean()
