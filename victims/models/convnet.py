"""A small ReLU network that runs in milliseconds on one core: the default victim."""

import torch
from torch import Tensor, nn


class ConvNet(nn.Module):
    """Five 3x3 ReLU convolutions (32, 32, 64, 64, 64 channels), two of them with stride 2, and a linear classifier.

    Like the ConvNet of Geiping et al., which is `convnet64`, it is made of 3x3 convolutions with bias and ReLU,
    and its classifier sees the whole last map. Unlike that one it has five convolutions instead of eight, fewer
    channels, strides instead of max-pooling, and no batch norm, so train and eval mode are the same. No global
    pooling: with it, position is averaged away and neither pixels nor a generator's latent can be found.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.body = nn.Sequential()
        for c_out, stride in ((32, 1), (32, 2), (64, 1), (64, 2), (64, 1)):
            self.body.extend([nn.Conv2d(channels, c_out, 3, stride, padding=1), nn.ReLU()])
            channels = c_out
        rows, columns = -(-height // 4), -(-width // 4)
        self.classifier = nn.Linear(channels * rows * columns, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, num_classes)."""
        return self.classifier(torch.flatten(self.body(x), 1))
