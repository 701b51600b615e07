"""The sigmoid LeNet of Zhu et al., *Deep Leakage from Gradients*, 2019."""

import torch
from torch import Tensor, nn


class LeNet(nn.Module):
    """DLG's sigmoid LeNet: three 5x5 convolutions (strides 2, 2, 1; 12 channels) and a linear classifier.

    Weights and biases start uniform in (-0.5, 0.5), as in the paper's code. Without strong saturation, pooling or ReLU
    its gradient is smooth in the image, which attacks by L-BFGS need.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.body = nn.Sequential(
            nn.Conv2d(channels, 12, 5, stride=2, padding=2), nn.Sigmoid(),
            nn.Conv2d(12, 12, 5, stride=2, padding=2), nn.Sigmoid(),
            nn.Conv2d(12, 12, 5, stride=1, padding=2), nn.Sigmoid(),
        )  # fmt: skip
        rows, columns = -(-height // 4), -(-width // 4)
        self.classifier = nn.Linear(12 * rows * columns, num_classes)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, num_classes)."""
        x = self.body(x)
        return self.classifier(torch.flatten(x, 1))
