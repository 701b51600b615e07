"""What every defence provides."""

from abc import ABC, abstractmethod

import torch

from victims.observation import Transform
from victims.victim import Gradient


class Defense(ABC):
    """A map update -> update on the client, and the copy that an adapting attacker makes of it."""

    @abstractmethod
    def __call__(self, update: Gradient, generator: torch.Generator) -> Gradient:
        """The defended update. All randomness comes from `generator`."""

    @staticmethod
    @abstractmethod
    def estimate(received: Gradient) -> Transform:
        """The attacker's differentiable copy of the defence, from the received updates alone.

        It is static so that it cannot see the parameters the client used.

        Args:
            received: (R, *shape) per parameter: one received update for each run.
        """
