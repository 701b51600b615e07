"""DLG: Zhu, Liu, Han, *Deep Leakage from Gradients*, NeurIPS 2019, algorithm 1.
iDLG: Zhao, Mopuri, Bilen, *iDLG: Improved Deep Leakage from Gradients*, 2020, algorithm 1.
"""

from dataclasses import replace
from operator import itemgetter
from typing import ClassVar, Unpack

from torch import Tensor

from attacks.base import Attack, Common, LabelSource
from attacks.engine.distances import squared_l2
from attacks.engine.optimizers import LBFGS
from attacks.engine.preset import Preset
from attacks.engine.space import Between
from attacks.engine.stage import Search, Stage
from attacks.labels.idlg import idlg
from victims.observation import Observation
from victims.ranges import above_zero
from victims.victim import Gradient


class DLG(Attack):
    """Pixels and labels together, by L-BFGS on the squared distance of gradients, from noise, unboxed.

    There is no line search, so about half of the starts diverge at once and do not recover (one CIFAR-10 image on
    `lenet`): take several. Noise is N(0, 1) in the victim's normalized space; the paper's victim does not normalize.

    Args:
        steps_x: iterations of L-BFGS on pixels and labels; each takes one victim gradient.
        eta: length of a step, 1 being L-BFGS's own.
    """

    name = "dlg"
    labels: ClassVar[LabelSource] = "joint"
    space = {"eta": Between(1e-1, 1.0)}
    presets = {
        "paper": Preset(
            "the paper, section 4: 1200 calls of L-BFGS, 20 iterations each",
            assumed="one start, from noise in the normalized space: the paper's victim does not normalize",
            steps_x=24_000,
            restarts=1,
        ),
        "code": Preset(
            "the authors' code: 300 calls of L-BFGS, 20 iterations each",
            assumed="noise in the normalized space: the code's victim does not normalize",
            steps_x=6_000,
            restarts=1,
        ),
    }

    def __init__(self, *, steps_x: int = 4_000, eta: float = 1.0, **common: Unpack[Common]) -> None:
        super().__init__({"x": steps_x}, **common)
        above_zero(eta=eta)
        self.eta = eta

    def distance(self, dummy: Gradient, received: Gradient) -> Tensor:
        return squared_l2(dummy, received)

    def search(self) -> Search:
        shape = (self.batch_size, self.observations[0].num_classes)
        yield Stage(
            name="x",
            variables={"x": self.noise(), "y": self.normal(shape, "labels")},
            labels=lambda v: v["y"].softmax(-1),
            lr=self.eta,
            optimizer=LBFGS,
        )


class IDLG(DLG):
    """The label of a single image from its classifier gradient, then DLG's search with this label fixed."""

    name = "idlg"
    labels = "inferred"
    made_for = {"batch": 1}
    presets = {"code": DLG.presets["code"]}

    def check(self, observation: Observation) -> None:
        """Refuse a victim that the label rule of iDLG cannot work on."""
        super().check(observation)
        idlg(observation)

    def search(self) -> Search:
        (dlg,) = super().search()
        y = self.per_instance([idlg(o) for o in self.observations])  # (R, 1)
        yield replace(dlg, variables={"x": dlg.variables["x"]}, fixed={"y": y}, labels=itemgetter("y"))
