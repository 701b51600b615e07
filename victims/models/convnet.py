"""The default victim: a small ReLU network that runs in milliseconds on one core."""

import torch
from torch import Tensor, nn


class ConvNet(nn.Module):
    """The default: five 3x3 ReLU convolutions and a linear classifier, for CPUs.

    The convolutions have 32, 32, 64, 64 and 64 channels; two have stride 2. As in the ConvNet of Geiping et al., which
    is `convnet64`, they have bias and ReLU, and the classifier sees the whole last map. There are five convolutions
    instead of eight, fewer channels, strides instead of max-pooling, and no batch norm, so train and eval mode are the
    same. There is no global pooling: it averages positions away, and then an attack finds neither pixels nor a
    generator's latent.
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
