"""CNN6 of R-GAP (Zhu & Blaschko, ICLR 2021): every layer determines its input."""

from victims.models.plain import CNN6_PLAN, PlainCNN


class CNN6(PlainCNN):
    """R-GAP's network of six convolutions and one logit (odd classes against even ones).

    They have 12, 36, 36, 36, 64 and 128 channels.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(CNN6_PLAN, image_shape)
