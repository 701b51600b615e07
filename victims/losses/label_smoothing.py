"""Label smoothing: Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from victims.errors import InputError
from victims.losses.base import Loss


class LabelSmoothing(Loss):
    """Cross-entropy with the targets (1 - eps) t + eps / K."""

    examples = ("label_smoothing:0.1",)

    def __init__(self, eps: float) -> None:
        """
        Args:
            eps: the share of the uniform distribution, in [0, 1).

        Raises:
            InputError: it is outside.
        """
        super().__init__()
        if not 0 <= eps < 1:
            raise InputError(f"label_smoothing takes an eps from 0 up to but not including 1, not {eps}.")
        self.smoothing = eps

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        assert self.smoothing is not None
        return cross_entropy(logits, targets, label_smoothing=self.smoothing)
