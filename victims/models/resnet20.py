"""ResNet-20 for CIFAR-10 (He et al., 2016), with shortcuts of option A."""

from victims.models.cifar_resnets import CifarResNet


class ResNet20(CifarResNet):
    """ResNet-20, made for CIFAR-10: three stages of three basic blocks."""

    blocks = 3
