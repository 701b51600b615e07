"""GI-z: latent search alone (Jeon et al., *Gradient Inversion with Generative Image Prior*, 2021, eq. 5)."""

from collections.abc import Callable
from typing import Literal, Unpack

from torch import Tensor

from attacks.base import Attack, Common
from attacks.engine.regularizers import total_variation
from attacks.engine.schedules import multistep
from attacks.engine.stage import Search, Stage, Variables, split
from priors.base import decode


def latent_search(
    attack: Attack,
    eta_z: float,
    penalty: Callable[[Variables, Tensor], Tensor],
    keep: Literal["each", "best"] = "each",
) -> Stage:
    """min over z_1..z_B of c(G_w(z_1), ..., G_w(z_B)), from latents drawn from the prior."""
    state, prior = attack.latents(), attack.prior
    return Stage(
        name="z",
        **split(state, prior.latents),
        decode=lambda v: attack.images(decode(prior, {name: v[name] for name in state})),
        lr=eta_z,
        schedule=multistep,
        penalty=penalty,
        keep=keep,
    )


class GIz(Attack):
    """Latents of a trained generator by Adam on the cosine cost plus total variation.

    Args:
        steps_z: steps on the latents.
        eta_z: their learning rate.
        tv: weight of mean |dx| + mean |dy| on the normalized image.
    """

    name = "gi_z"
    needs = frozenset({"labels", "prior"})
    presets = {"code": {"steps_z": 1_000, "tv": 1e-6, "restarts": 3}}

    def __init__(self, *, steps_z: int = 600, eta_z: float = 3e-2, tv: float = 1e-4, **common: Unpack[Common]) -> None:
        super().__init__({"z": steps_z}, **common)
        self.eta_z, self.tv = eta_z, tv

    def search(self) -> Search:
        yield latent_search(self, self.eta_z, lambda v, x: self.tv * total_variation(x))
