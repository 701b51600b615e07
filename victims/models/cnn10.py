"""CNN10, the deeper victim of R-GAP in GIAS (Jeon et al., NeurIPS 2021, figure A2)."""

from victims.models.plain import CNN6_PLAN, PlainCNN


class CNN10(PlainCNN):
    """R-GAP's victim in GIAS: ten convolutions and one logit (odd classes against even ones).

    Its layout is not published. Assumed: CNN6 with five copies of its fourth convolution (36 to 36 channels, kernel 3).
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__((*CNN6_PLAN[:3], *[CNN6_PLAN[3]] * 5, *CNN6_PLAN[4:]), image_shape)
