"""DenseNet-121 (Huang et al., 2017) with the stem for 32 and 64 px images (3x3, stride 1, no pooling)."""

from torch import nn
from torchvision.models.densenet import DenseNet


class DenseNet121(DenseNet):
    """DenseNet-121 with a 3x3 stem for small images: torchvision's without the early down-sampling.

    The form for ImageNet, as in GIFD's code, is `torchvision:densenet121`.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(growth_rate=32, block_config=(6, 12, 24, 16), num_init_features=64, num_classes=num_classes)
        self.features.conv0 = nn.Conv2d(image_shape[0], 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.features.conv0.weight)
        self.features.pool0 = nn.Identity()
