"""torchvision's residual networks (He et al., 2016) with a stem for 32 and 64 px images, as GIAS and GIFD use them.

With the stem for ImageNet (7x7, stride 2, then pooling) they are `torchvision:resnet18` and so on.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


class SmallImageResNet(ResNet):
    """The stem is a 3x3 convolution with stride 1, without pooling. A subclass gives the kind and number of blocks.

    Class attributes:
        norm: makes the normalization of so many channels.
    """

    block: ClassVar[type[BasicBlock | Bottleneck]]
    depths: ClassVar[Sequence[int]]
    norm: ClassVar[Callable[[int], nn.Module]] = nn.BatchNorm2d

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(self.block, list(self.depths), num_classes=num_classes, norm_layer=self.norm)
        self.conv1 = nn.Conv2d(image_shape[0], 64, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()
