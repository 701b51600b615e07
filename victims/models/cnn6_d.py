"""CNN6-d of R-GAP (Zhu & Blaschko, ICLR 2021): the second convolution does not determine its input."""

from victims.models.plain import CNN6_PLAN, PlainCNN


class CNN6d(PlainCNN):
    """CNN6 with 20 instead of 36 channels after the second convolution: too few equations for its input."""

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        first, (_, kernel, stride, padding), *rest = CNN6_PLAN
        super().__init__((first, (20, kernel, stride, padding), *rest), image_shape)
