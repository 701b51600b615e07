"""VGG-16 (Simonyan & Zisserman, 2015) for small images, as kuangliu/pytorch-cifar and Geiping et al.'s code have it."""

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers


class VGG16(nn.Module):
    """The thirteen convolutions of configuration D, with batch norm, and one linear layer on all of the last map.

    At 32 px that map is one pixel. The original with its three fully connected layers and dropout, as GIFD's code
    has it, is `torchvision:vgg16`.
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
