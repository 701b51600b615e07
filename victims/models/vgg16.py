"""VGG-16 (Simonyan & Zisserman, 2015) for small images, as in kuangliu/pytorch-cifar and Geiping et al.'s code."""

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers


class VGG16(nn.Module):
    """VGG-16 for small images: thirteen convolutions with batch norm (configuration D) and one linear layer.

    That layer sees the whole last map, which is one pixel at 32 px. The original with three fully connected layers and
    dropout is `torchvision:vgg16`. GIFD attacks a VGG-16 that its released code does not have.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.features = make_layers(cfgs["D"], batch_norm=True)
        self.features[0] = nn.Conv2d(channels, 64, 3, padding=1)
        self.classifier = nn.Linear(512 * (height // 32) * (width // 32), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, num_classes)."""
        return self.classifier(self.features(x).flatten(1))
