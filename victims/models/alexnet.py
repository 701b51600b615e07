"""AlexNet for small images, as in bearpaw/pytorch-classification for CIFAR."""

from torch import Tensor, nn


class AlexNet(nn.Module):
    """AlexNet for small images: the five convolutions of torchvision's (Krizhevsky, 2014) and one linear layer.

    Differences from torchvision: the first convolution pads by 5, the pools are 2x2, and two fully connected layers
    with dropout are left out. So the last map is one pixel at 32 px, and the classifier sees all of it. The original
    is `torchvision:alexnet`. GIFD attacks an AlexNet that its released code does not have.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.features = nn.Sequential(
            nn.Conv2d(channels, 64, 11, stride=4, padding=5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        rows, columns = (-(-side // 4) // 8 for side in (height, width))
        self.classifier = nn.Linear(256 * rows * columns, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, num_classes)."""
        return self.classifier(self.features(x).flatten(1))
