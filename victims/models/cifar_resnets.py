"""The residual networks that He et al. (2016, section 4.2) made for CIFAR-10, in the layout of trained weights.

Names of the parameters are those of akamaster/pytorch_resnet_cifar10, whose checkpoints load unchanged.
"""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.models.resnet import BasicBlock


class ShortcutA(nn.Module):
    """He et al.'s option A: every second position, and zeros for the new channels. No parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2 C, ceil(H / 2), ceil(W / 2)), the old channels in the middle."""
        half = x.shape[1] // 2
        return pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))


class CifarResNet(nn.Sequential):
    """Three stages of 16, 32 and 64 channels. A subclass gives the number of basic blocks in each."""

    blocks: ClassVar[int]

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.add_module("conv1", nn.Conv2d(image_shape[0], 16, 3, padding=1, bias=False))
        self.add_module("bn1", nn.BatchNorm2d(16))
        self.add_module("relu", nn.ReLU())
        for stage, (c_in, c_out) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            first = BasicBlock(c_in, c_out) if c_in == c_out else BasicBlock(c_in, c_out, 2, ShortcutA())
            rest = [BasicBlock(c_out, c_out) for _ in range(self.blocks - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))
        self.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.add_module("flatten", nn.Flatten())
        self.add_module("linear", nn.Linear(64, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
