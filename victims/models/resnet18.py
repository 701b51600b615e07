"""ResNet-18 (He et al., 2016) with the stem for 32 and 64 px images."""

from torchvision.models.resnet import BasicBlock

from victims.models.resnets import SmallImageResNet


class ResNet18(SmallImageResNet):
    """ResNet-18 with a 3x3 stem for small images: four stages of two basic blocks."""

    block, depths = BasicBlock, (2, 2, 2, 2)
