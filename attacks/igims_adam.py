"""IGIMS*: IGIMS with Adam in place of CMA-ES on the latents."""

from torch import Tensor

from attacks.engine.schedules import multistep
from attacks.igims import IGIMS


class IGIMSAdam(IGIMS):
    """IGIMS with Adam on the latents, from random starts, in place of CMA-ES.

    `population` and `sigma` have no effect.
    """

    name = "igims_adam"
    presets = {
        "paper": {**IGIMS.presets["paper"], "steps_z": 1_000},
        "paper-imagenet": {**IGIMS.presets["paper-imagenet"], "steps_z": 1_000},
    }

    def start(self) -> dict[str, Tensor]:
        return self.latents()

    def latent_optimizer(self, t: int, rate: float) -> dict[str, object]:
        return {"lr": self.eta_z * rate, "schedule": multistep}
