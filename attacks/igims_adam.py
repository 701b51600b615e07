"""IGIMS*: IGIMS with Adam in place of CMA-ES on the latents."""

from attacks.igims import IGIMS
from attacks.schedules import multistep


class IGIMSAdam(IGIMS):
    """As IGIMS, its latents by Adam; `population` and `sigma` mean nothing here."""

    presets = {
        "paper": {"rounds": 1, "steps_z": 1_000, "steps_w": 1_000, "tv": 1e-6, "restarts": 1},
        "paper-imagenet": {"rounds": 1, "steps_z": 1_000, "steps_w": 1_000, "tv": 1e-4, "eta_w": 1e-5, "restarts": 1},
    }

    def latent_optimiser(self, t: int, rate: float) -> dict[str, object]:
        return {"lr": self.eta_z * rate, "schedule": multistep}
