"""The parts of the victims of R-GAP (Zhu & Blaschko, ICLR 2021): only layers that can be inverted."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

SLOPE = 0.2

Plan = Sequence[tuple[int, int, int, int]]

CNN6_PLAN: Plan = ((12, 4, 2, 2), (36, 3, 2, 1), (36, 3, 1, 1), (36, 3, 1, 1), (64, 3, 2, 1), (128, 3, 1, 1))
"""Channels out, kernel, stride and padding of every convolution of CNN6."""


class PlainCNN(nn.Sequential):
    """Convolutions with LeakyReLU(0.2) after each, then one linear logit; no layer has a bias."""

    def __init__(self, plan: Plan, image_shape: tuple[int, int, int]) -> None:
        """
        Args:
            plan: channels out, kernel, stride and padding of every convolution.
            image_shape: (C, H, W).
        """
        super().__init__()
        c_in, *size = image_shape
        for number, (c_out, kernel, stride, padding) in enumerate(plan, 1):
            self.add_module(f"conv{number}", nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False))
            self.add_module(f"act{number}", nn.LeakyReLU(SLOPE))
            c_in, size = c_out, [(side + 2 * padding - kernel) // stride + 1 for side in size]
        self.add_module("flatten", nn.Flatten())
        self.add_module("fc", nn.Linear(c_in * size[0] * size[1], 1, bias=False))


class PlainFCN(nn.Sequential):
    """Linear layers with LeakyReLU(0.2) between them; no layer has a bias."""

    def __init__(self, widths: Sequence[int]) -> None:
        """
        Args:
            widths: of every layer's input, and of the output.
        """
        super().__init__()
        self.add_module("flatten", nn.Flatten())
        for number, (n_in, n_out) in enumerate(pairwise(widths), 1):
            if number > 1:
                self.add_module(f"act{number - 1}", nn.LeakyReLU(SLOPE))
            self.add_module(f"fc{number}", nn.Linear(n_in, n_out, bias=False))
