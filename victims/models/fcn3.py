"""FCN3 of R-GAP (Zhu & Blaschko, ICLR 2021): fully connected; the gradient of every layer determines its input."""

from math import prod

from victims.models.plain import PlainFCN


class FCN3(PlainFCN):
    """R-GAP's fully connected network: 1000 and 100 hidden units, one logit (odd classes against even ones)."""

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__((prod(image_shape), 1000, 100, 1))
