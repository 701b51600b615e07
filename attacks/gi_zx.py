"""GI-z/x: latents, then pixels (Jeon et al., *Gradient Inversion with Generative Image Prior*, 2021)."""

from typing import Unpack

from torch import Tensor

from attacks.base import Attack, Common
from attacks.engine.regularizers import total_variation
from attacks.engine.schedules import multistep
from attacks.engine.stage import Search, Stage, Variables
from attacks.gi_z import latent_search
from priors.base import decode


class GIzx(Attack):
    """The latents of least cost give the image from which the pixels are searched, without the generator.

    Args:
        steps_z, steps_x: steps of the two stages.
        eta_z, eta_x: their learning rates; that of the pixels is `assumed`, the source has none.
        tv: weight of mean |dx| + mean |dy| on the normalized image.
        signed: hand only the sign of the pixels' gradient to Adam; GIAS's code does not.
    """

    name = "gi_zx"
    needs = frozenset({"labels", "prior"})
    presets = {"code": {"steps_z": 500, "steps_x": 5_000, "tv": 1e-6, "restarts": 3}}

    def __init__(
        self,
        *,
        steps_z: int = 300,
        steps_x: int = 300,
        eta_z: float = 3e-2,
        eta_x: float = 3e-2,
        tv: float = 1e-4,
        signed: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__({"z": steps_z, "x": steps_x}, **common)
        self.eta_z, self.eta_x, self.tv, self.signed = eta_z, eta_x, tv, signed

    def search(self) -> Search:
        state = yield latent_search(self, self.eta_z, self.penalty)
        yield Stage(
            name="x",
            variables={"x": self.images(decode(self.prior, state))},
            decode=lambda v: v["x"],
            lr=self.eta_x,
            schedule=multistep,
            penalty=self.penalty,
            project=lambda v, step: self.box(v["x"]),
            signed=self.signed,
        )

    def penalty(self, v: Variables, x: Tensor) -> Tensor:
        return self.tv * total_variation(x)
