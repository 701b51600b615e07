"""A plain fully connected network of any width and depth, with biases and ReLU."""

from itertools import pairwise
from math import prod

from torch import nn

from victims.errors import InputError


class FCN(nn.Sequential):
    """Fully connected, with biases and ReLU, of any width and depth: `fcn:400` has one hidden layer, `fcn:400x400` two.

    The first layer sees the pixels themselves, so that its gradient is made of the images of the batch.
    """

    def __init__(self, widths: str = "400x400", *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """
        Args:
            widths: of the hidden layers, first to last, with x between them.

        Raises:
            InputError: they are no numbers above 0.
        """
        super().__init__(nn.Flatten())
        hidden = widths.split("x")
        if not all(width.isdecimal() and int(width) for width in hidden):
            raise InputError(f"fcn takes widths of hidden layers, such as fcn:400 or fcn:400x400, not '{widths}'.")
        for number, (n_in, n_out) in enumerate(pairwise([prod(image_shape), *map(int, hidden), num_classes]), 1):
            if number > 1:
                self.add_module(f"act{number - 1}", nn.ReLU())
            self.add_module(f"fc{number}", nn.Linear(n_in, n_out))
