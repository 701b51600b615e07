"""A small ReLU network that runs in milliseconds on one core: the default victim."""

import torch
from torch import Tensor, nn


class ConvNet(nn.Module):
    """Five 3x3 ReLU convolutions, two of them with stride 2; the classifier sees the whole map.

    No batch normalisation, so train and eval mode are the same. No global pooling: with it, position is
    averaged away and neither pixels nor a generator's latent can be found.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int, width: int = 32) -> None:
        super().__init__()
        channels, height, width_px = image_shape
        plan = [(channels, width, 1), (width, width, 2), (width, 2 * width, 1)]
        plan += [(2 * width, 2 * width, 2), (2 * width, 2 * width, 1)]
        self.body = nn.Sequential()
        for c_in, c_out, stride in plan:
            self.body.extend([nn.Conv2d(c_in, c_out, 3, stride, padding=1), nn.ReLU()])
        rows, columns = -(-height // 4), -(-width_px // 4)
        self.classifier = nn.Linear(2 * width * rows * columns, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, num_classes)."""
        return self.classifier(torch.flatten(self.body(x), 1))
