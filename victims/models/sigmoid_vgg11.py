"""CI-Net's other victim: the VGG-11 of its authors' code, with sigmoids."""

from torch import Tensor, nn

WIDTHS = ((32,), (128,), (256, 256), (512, 512), (512, 512))
"""Channels of the convolutions before each pooling; VGG-11 (Simonyan & Zisserman, 2015) has 64 in the first."""


class SigmoidVGG11(nn.Module):
    """VGG-11 of CI-Net's code: sigmoids, no batch norm, 2x2 kernels that pad by one, and no stride in any layer.

    So the map keeps its size (35 x 35 at 32 px), and the one linear layer sees all of it.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.features = nn.Sequential()
        for widths in WIDTHS:
            for c_out in widths:
                self.features.extend([nn.Conv2d(channels, c_out, 2, padding=1), nn.Sigmoid()])
                channels, height, width = c_out, height + 1, width + 1
            self.features.append(nn.MaxPool2d(2, stride=1))
            height, width = height - 1, width - 1
        self.classifier = nn.Linear(channels * height * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, num_classes)."""
        return self.classifier(self.features(x).flatten(1))
