"""DLG: Zhu, Liu, Han, *Deep Leakage from Gradients*, NeurIPS 2019, algorithm 1."""

from typing import Unpack

import torch
from torch import Tensor

from attacks.base import Attack, Common
from attacks.engine.distances import squared_l2
from attacks.engine.optimizers import LBFGS
from attacks.engine.stage import Search, Stage
from victims.victim import Gradient


class DLG(Attack):
    """Pixels and labels together, by L-BFGS on the squared distance of gradients, from noise, unboxed.

    There is no line search, so about half of the starts are thrown far off and stay there (one CIFAR-10 image on
    `lenet`): take several. Noise is N(0, 1) in the victim's normalized space; the paper's victim takes pixels as
    they are.

    Args:
        steps_x: iterations of L-BFGS on pixels and labels; each takes one victim gradient.
        eta: length of a step, 1 being L-BFGS's own.
    """

    name = "dlg"
    labels = "joint"
    presets = {  # both call torch's L-BFGS again and again, for 20 iterations each
        "paper": {"steps_x": 24_000, "restarts": 1},  # 1200 calls
        "code": {"steps_x": 6_000, "restarts": 1},  # 300
    }

    def __init__(self, *, steps_x: int = 4_000, eta: float = 1.0, **common: Unpack[Common]) -> None:
        super().__init__({"x": steps_x}, **common)
        self.eta = eta

    def distance(self, dummy: Gradient, received: Gradient) -> Tensor:
        return squared_l2(dummy, received)

    def search(self) -> Search:
        shape = (self.batch_size, self.observations[0].num_classes)
        yield Stage(
            name="x",
            variables={"x": self.noise(), "y": self.draw(lambda g: torch.randn(shape, generator=g), "labels")},
            decode=lambda v: v["x"],
            labels=lambda v: v["y"].softmax(-1),
            lr=self.eta,
            optimizer=LBFGS,
        )
