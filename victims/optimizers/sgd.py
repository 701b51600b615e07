"""Stochastic gradient descent."""

from victims.errors import InputError
from victims.optimizers.base import Optimizer, State, require_decay
from victims.victim import Gradient


class SGD(Optimizer):
    """Plain SGD, or with momentum and weight decay as in `torch.optim.SGD`: g += decay theta, v <- mu v + g, d = v."""

    examples = ("sgd", "sgd:0.9", "sgd:0.9:0.01")

    def __init__(self, momentum: float = 0.0, decay: float = 0.0) -> None:
        """
        Args:
            momentum: mu, in [0, 1).
            decay: of the weights, 0 or more.

        Raises:
            InputError: one of them is outside.
        """
        if not 0 <= momentum < 1:
            raise InputError(f"sgd takes a momentum from 0 up to but not including 1, not {momentum}.")
        require_decay("sgd", decay)
        self.momentum, self.decay = momentum, decay

    def direction(self, theta: Gradient, g: Gradient, state: State, step: int) -> Gradient:
        if self.decay:
            g = {name: tensor + self.decay * theta[name] for name, tensor in g.items()}
        if self.momentum and step > 1:
            g = {name: self.momentum * state["v"][name] + tensor for name, tensor in g.items()}
        state["v"] = g
        return g

    def counts(self, steps: int) -> float:
        """sum_t sum_{s <= t} mu^(t - s), for the gradient of step s is in every later v."""
        return sum((1 - self.momentum**k) / (1 - self.momentum) for k in range(1, steps + 1))
