"""FCN3 as in R-GAP's released code, which has an activation after every layer, the last one too."""

from torch import nn

from victims.models.fcn3 import FCN3
from victims.models.plain import SLOPE


class FCN3Leaky(FCN3):
    """R-GAP's fully connected network as released: `fcn3`, and a LeakyReLU(0.2) on the logit.

    So a negative logit, and with it the gradient, is a fifth of that of `fcn3`. The released CNN6 has none there.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(image_shape=image_shape, num_classes=num_classes)
        self.add_module("act3", nn.LeakyReLU(SLOPE))
