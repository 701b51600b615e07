"""ResNet-18 (He et al., 2016) with the stem for 32 and 64 px images."""

from torchvision.models.resnet import BasicBlock

from victims.models.resnets import SmallImageResNet


class ResNet18(SmallImageResNet):
    """Four stages of two basic blocks."""

    block, depths = BasicBlock, (2, 2, 2, 2)
