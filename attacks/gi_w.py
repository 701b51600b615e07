"""GI-w: parameter search alone (Jeon et al., *Gradient Inversion with Generative Image Prior*, 2021, eq. 7)."""

from collections.abc import Callable
from typing import Unpack

from torch import Tensor

from attacks.base import Attack, Common
from attacks.engine.regularizers import total_variation
from attacks.engine.schedules import multistep
from attacks.engine.stage import Search, Stage, Variables
from priors.base import State, decode_each


def parameter_search(
    attack: Attack, state: State, eta_w: float, penalty: Callable[[Variables, Tensor], Tensor]
) -> Stage:
    """min over w_1..w_B of c(G_{w_1}(z_1), ..., G_{w_B}(z_B)), every w_j from the prior's own parameters.

    Args:
        state: what goes into the prior, (R, B, ...); it stays.
    """
    runs = next(iter(state.values())).shape[:2]
    w = {name: p.expand(*runs, *p.shape) for name, p in attack.prior.named_parameters()}
    return Stage(
        name="w",
        variables=w,
        fixed=state,
        decode=lambda v: attack.images(decode_each(attack.prior, {n: v[n] for n in w}, {n: v[n] for n in state})),
        lr=eta_w,
        schedule=multistep,
        penalty=penalty,
    )


class GIw(Attack):
    """A copy of the generator's parameters for every image, from random latents that stay as they are.

    With a prior that nobody trained this is a search with the generator's structure alone (deep image prior).

    Args:
        steps_w: steps on the parameters.
        eta_w: their learning rate.
        tv: weight of mean |dx| + mean |dy| on the normalized image.
    """

    name = "gi_w"
    needs = frozenset({"labels", "prior"})
    presets = {"code": {"steps_w": 6_000, "tv": 1e-6, "restarts": 3}}

    def __init__(self, *, steps_w: int = 600, eta_w: float = 1e-3, tv: float = 1e-4, **common: Unpack[Common]) -> None:
        super().__init__({"w": steps_w}, **common)
        self.eta_w, self.tv = eta_w, tv

    def search(self) -> Search:
        yield parameter_search(self, self.latents(), self.eta_w, lambda v, x: self.tv * total_variation(x))
