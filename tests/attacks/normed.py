"""A victim with batch norm that is quick in float64."""

from torch import nn


class Normed(nn.Sequential):
    """Two convolutions, each with batch norm and a sigmoid, and a linear layer."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        channels, height, width = image_shape
        super().__init__(
            *(nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Sigmoid()),
            *(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Sigmoid()),
            *(nn.Flatten(), nn.Linear(height * width // 2, num_classes)),
        )
