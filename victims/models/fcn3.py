"""FCN3 of R-GAP (Zhu & Blaschko, ICLR 2021): fully connected, every layer's input can be read off its gradient."""

from math import prod

from victims.models.plain import PlainFCN


class FCN3(PlainFCN):
    """1000 and 100 hidden units and one logit, which tells odd classes from even ones."""

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__((prod(image_shape), 1000, 100, 1))
