"""CI-Net's kind of victim at a size for CPUs: a sigmoid residual network of four blocks."""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from victims.models.sigmoid_resnet18 import smooth


class SigmoidResNet10(nn.Module):
    """A residual network of four blocks with sigmoids, after CI-Net's victim, for CPUs.

    The stem has 32 channels, the residual blocks (He et al., 2016) 64, 128, 256 and 512. Every block halves the map,
    and the classifier sees the whole last map: with global pooling, as in ResNet-18, such a small network averages
    positions away.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.stem = nn.Sequential(nn.Conv2d(channels, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.blocks = nn.Sequential()
        for c_in, c_out in ((32, 64), (64, 128), (128, 256), (256, 512)):
            shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride=2, bias=False), nn.BatchNorm2d(c_out))
            self.blocks.append(BasicBlock(c_in, c_out, 2, shortcut))
        self.classifier = nn.Linear(512 * -(-height // 16) * -(-width // 16), num_classes)
        smooth(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, num_classes)."""
        return self.classifier(torch.flatten(self.blocks(self.stem(x)), 1))
