"""ResNet-34 (He et al., 2016) with the stem for 32 and 64 px images."""

from torchvision.models.resnet import BasicBlock

from victims.models.resnets import SmallImageResNet


class ResNet34(SmallImageResNet):
    """ResNet-34 with a 3x3 stem for small images: stages of 3, 4, 6 and 3 basic blocks."""

    block, depths = BasicBlock, (3, 4, 6, 3)
