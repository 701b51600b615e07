"""Inverting Gradients: Geiping, Bauermeister, Dröge, Moeller, NeurIPS 2020."""

from typing import Unpack

from attacks.base import Attack, Common
from attacks.regularisers import total_variation
from attacks.schedules import multistep
from attacks.stage import Search, Stage


class IG(Attack):
    """Pixels by signed Adam on the cosine cost plus total variation, boxed (GI-x).

    Args:
        steps_x: steps on the pixels.
        eta: learning rate of Adam.
        tv: weight of mean |dx| + mean |dy| on the normalised image.
        signed: hand only the gradient's sign to Adam.
        boxed: clamp to what pixels can be after every step.
    """

    needs = frozenset({"labels"})
    presets = {
        "paper": {"steps_x": 24_000, "tv": 1e-6, "restarts": 1},  # untrained ConvNet, CIFAR-10
        "paper-imagenet": {"steps_x": 24_000, "tv": 1e-1, "restarts": 8},  # trained ResNet
        "code": {"steps_x": 4_800, "tv": 1e-4, "restarts": 1},  # rec_mult
    }

    def __init__(
        self,
        *,
        steps_x: int = 600,
        eta: float = 0.1,
        tv: float = 1e-4,
        signed: bool = True,
        boxed: bool = True,
        **common: Unpack[Common],
    ) -> None:
        super().__init__({"x": steps_x}, **common)
        self.eta, self.tv, self.signed, self.boxed = eta, tv, signed, boxed

    def search(self) -> Search:
        yield Stage(
            name="x",
            variables={"x": self.noise()},
            decode=lambda v: v["x"],
            lr=self.eta,
            schedule=multistep,
            penalty=lambda v, x: self.tv * total_variation(x),
            project=(lambda v, step: self.box(v["x"])) if self.boxed else None,
            signed=self.signed,
        )
