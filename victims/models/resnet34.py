"""ResNet-34 (He et al., 2016) with the stem for 32 and 64 px images."""

from torchvision.models.resnet import BasicBlock

from victims.models.resnets import SmallImageResNet


class ResNet34(SmallImageResNet):
    """Stages of 3, 4, 6 and 3 basic blocks."""

    block, depths = BasicBlock, (3, 4, 6, 3)
