"""ResNet-18 with the stem for 32 and 64 px images (3x3, stride 1, no pooling), as GIAS and GIFD use it."""

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


class ResNet18(ResNet):
    """torchvision's ResNet-18 (He et al., 2016) without its early down-sampling."""

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
        self.conv1 = nn.Conv2d(image_shape[0], 64, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()
