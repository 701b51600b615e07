"""What every local optimizer provides."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

from victims.errors import InputError
from victims.victim import Gradient

State = dict[str, Gradient]
"""What an optimizer remembers from one step to the next, empty before the first; `direction` changes it."""


class Optimizer(ABC):
    """A rule theta <- theta - lr d for one local step, differentiable in the gradients, with torch's values.

    Every client begins with an empty state, as the server's model comes without one.

    Class attributes:
        examples: uses of it as LOCAL_OPTIMIZER= takes them; the contract tests run them.
        averages: whether to first order in lr the sum of all d is a weighted sum of gradients and of theta_0.

    Attributes:
        decay: the multiple of theta_0 that is in d besides the gradient, to first order in lr.
    """

    examples: ClassVar[tuple[str, ...]] = ()
    averages: ClassVar[bool] = True
    decay: float = 0.0

    @property
    def decays(self) -> bool:
        """Whether there is any weight decay; torch's optimizers leave out a weight that is not in the loss."""
        return self.decay > 0

    @abstractmethod
    def direction(self, theta: Gradient, g: Gradient, state: State, step: int) -> Gradient:
        """d of a step, from the weights and their gradient; steps count from 1."""

    def counts(self, steps: int) -> float:
        """How often a gradient that is the same in all steps is in the sum of all d."""
        return steps


def require_decay(name: str, decay: float) -> None:
    """
    Raises:
        InputError: it is negative or not finite.
    """
    if not 0 <= decay < math.inf:
        raise InputError(f"{name} takes a weight decay of 0 or more, not {decay}.")
