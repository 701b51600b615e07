"""CI-Net's victim on ImageNet: torchvision's ResNet-18 with every ReLU replaced by a sigmoid."""

from torchvision.models.resnet import BasicBlock, ResNet

from victims.models.sigmoid_resnet18 import smooth


class SigmoidResNet18ImageNet(ResNet):
    """ResNet-18 in its form for ImageNet (7x7 stem and pooling) with a sigmoid in place of every ReLU.

    CI-Net's victim on ImageNet at 256 px; its small-image form is `sigmoid_resnet18`. It takes color images.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
        smooth(self)
