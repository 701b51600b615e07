"""GIAS: Jeon, Kim, Lee, Oh, Ok, *Gradient Inversion with Generative Image Prior*, NeurIPS 2021, algorithm 1."""

from typing import Literal, Unpack

from torch import Tensor

from attacks.base import Attack, Common
from attacks.engine.regularizers import squared_variation, total_variation
from attacks.engine.stage import Search, Variables
from attacks.gi_w import parameter_search
from attacks.gi_z import latent_search

VARIATION = {"mean_abs": total_variation, "sum_squares": squared_variation}


class GIAS(Attack):
    """First the latents, then a copy of the generator's parameters for every image (GI-z/w).

    Paper and code disagree in three places, hence two presets. Restarts: the paper keeps four starts to the
    end, the code lets the best latents of three start every parameter search; with a generator that has no
    noise of its own these would be identical, so one search goes on. Steps: the paper states 1500 on the
    latents and none for the parameters (the code's ratio is assumed), the code 500 and 5000 at 32 px.
    Variation: the paper sums squares with weight 1e-4, the code takes mean absolute values with 1e-6.

    Args:
        steps_z, steps_w: steps of the two stages.
        eta_z, eta_w: their learning rates.
        tv: weight of the variation.
        variation: mean_abs or sum_squares of neighbor differences on the normalized image.
        alpha_bn: weight of the distance to the batch-norm statistics that the observation declares (--bn), as gi's.
        keep: after the latents `each` restart goes on, or the `best` alone.
    """

    name = "gias"
    needs = frozenset({"labels", "prior"})
    uses = frozenset({"bn"})
    presets = {
        "paper": {
            "steps_z": 1_500,
            "steps_w": 15_000,
            "tv": 1e-4,
            "variation": "sum_squares",
            "restarts": 4,
        },
        "code": {
            "steps_z": 500,
            "steps_w": 5_000,
            "tv": 1e-6,
            "keep": "best",
            "restarts": 3,
        },
    }

    def __init__(
        self,
        *,
        steps_z: int = 300,
        steps_w: int = 300,
        eta_z: float = 3e-2,
        eta_w: float = 1e-3,
        tv: float = 1e-4,
        variation: Literal["mean_abs", "sum_squares"] = "mean_abs",
        alpha_bn: float = 0.1,
        keep: Literal["each", "best"] = "each",
        **common: Unpack[Common],
    ) -> None:
        super().__init__({"z": steps_z, "w": steps_w}, **common)
        self.eta_z, self.eta_w, self.tv, self.alpha_bn, self.keep = eta_z, eta_w, tv, alpha_bn, keep
        self.variation = VARIATION[variation]

    def search(self) -> Search:
        state = yield latent_search(self, self.eta_z, self.penalty, self.keep)
        yield parameter_search(self, state, self.eta_w, self.penalty)

    def penalty(self, v: Variables, x: Tensor) -> Tensor:
        return self.tv * self.variation(x) + self.alpha_bn * self.bn(v, x)
