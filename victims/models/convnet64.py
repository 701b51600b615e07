"""The ConvNet of Geiping et al., *Inverting Gradients*, NeurIPS 2020, 64 channels wide."""

from torch import Tensor, nn


class ConvNet64(nn.Module):
    """The ConvNet of Geiping et al.: eight 3x3 convolutions with batch norm and ReLU, and two max-pools.

    As in the released code, where a repeated name leaves eight of the nine convolutions that are written there. That
    code is for 32 px; here the classifier fits a map of any size.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.features = nn.Sequential()
        for number, c_out in enumerate((64, 128, 128, 256, 256, 256, 256, 256)):
            self.features.extend([nn.Conv2d(channels, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU()])
            if number in (5, 7):
                self.features.append(nn.MaxPool2d(3))
            channels = c_out
        self.classifier = nn.Linear(256 * (height // 9) * (width // 9), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, num_classes)."""
        return self.classifier(self.features(x).flatten(1))
