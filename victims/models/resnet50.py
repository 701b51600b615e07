"""ResNet-50 (He et al., 2016) with the stem for 32 and 64 px images."""

from torchvision.models.resnet import Bottleneck

from victims.models.resnets import SmallImageResNet


class ResNet50(SmallImageResNet):
    """ResNet-50 with a 3x3 stem for small images: stages of 3, 4, 6 and 3 bottleneck blocks.

    It is torchvision's form, with the stride in the 3x3 convolution.
    """

    block, depths = Bottleneck, (3, 4, 6, 3)
