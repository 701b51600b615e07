"""What attacks by a trained inverter share: one forward pass, judged once."""

from typing import ClassVar, Unpack

import torch
from torch import Tensor

from attacks.base import Attack, Common
from attacks.engine.stage import Search, Stage
from priors.inverters import Inverter
from victims.observation import Observation


class Learned(Attack):
    """An attack whose images are the output of a trained inverter; their matching cost is computed only to be reported.

    Args:
        restarts: all give the same images.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels", "prior"})
    analytic = True

    prior: Inverter  # type: ignore[assignment]

    def __init__(self, **common: Unpack[Common]) -> None:
        common.setdefault("restarts", 1)
        super().__init__({"x": 1}, **common)

    def search(self) -> Search:
        """x = I(u, y), one task after another, so that no task's images depend on others'."""
        with torch.no_grad():
            x = [self.victim.normalize(self.invert(o)) for o in self.observations]
        yield Stage(name="x", variables={"x": self.per_instance(x)}, lr=0.0)

    def invert(self, observation: Observation) -> Tensor:
        """(B, C, H, W) in [0, 1]."""
        labels = observation.knowledge.labels
        assert labels is not None, "`check` refuses an observation without"
        return self.prior({name: g[None] for name, g in observation.update.items()}, labels[None])[0]
