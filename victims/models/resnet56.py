"""ResNet-56 for CIFAR-10 (He et al., 2016), with shortcuts of option A."""

from victims.models.cifar_resnets import CifarResNet


class ResNet56(CifarResNet):
    """ResNet-56, made for CIFAR-10: three stages of nine basic blocks."""

    blocks = 9
