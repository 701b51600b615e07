"""CI-Net's victim: ResNet-18 with every ReLU replaced by a sigmoid."""

from torch import nn

from victims.models.resnet18 import ResNet18


class SigmoidResNet18(ResNet18):
    """ResNet-18 with a sigmoid in place of every ReLU, CI-Net's victim.

    It is smooth everywhere, so second derivatives of the loss carry information at every pixel.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(image_shape=image_shape, num_classes=num_classes)
        smooth(self)


def smooth(model: nn.Module) -> None:
    """Replace every ReLU by a sigmoid, in place."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Sigmoid())
