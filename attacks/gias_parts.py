"""GI-z, GI-w and GI-z/x: Jeon, Kim, Lee, Oh, Ok, *Gradient Inversion with Generative Image Prior*, NeurIPS 2021.

What GIAS is compared with: a search of latents alone (eq. 5), of the generator's parameters alone (eq. 7), and of
latents and then pixels.
"""

from typing import Literal, Unpack

from torch import Tensor

from attacks.base import Attack, Common
from attacks.engine.preset import Preset
from attacks.engine.regularizers import total_variation
from attacks.engine.schedules import multistep
from attacks.engine.space import Between
from attacks.engine.stage import Search, Stage, Variables
from attacks.gias import CODE, TAEF2, Noise, latent_search, parameter_search
from victims.ranges import above_zero, not_negative


class GIz(Attack):
    """Latents of a trained generator by Adam on the cosine cost plus total variation.

    Args:
        steps_z: steps on the latents.
        eta_z: their learning rate.
        tv: weight of mean |dx| + mean |dy| on the normalized image.
        noise: the generator's own noise, fixed or redrawn in every step.
    """

    name = "gi_z"
    needs = frozenset({"labels", "prior"})
    space = {"eta_z": Between(3e-3, 3e-1), "tv": Between(1e-6, 1e-1)}
    presets = {
        "paper": Preset("GIAS, table 1 and appendix G", assumed="as gias:paper", steps_z=1_500, tv=1e-4, restarts=4),
        "code": Preset(
            "the authors' code",
            assumed="steps_z, which are those of GIAS there at 128 px",
            steps_z=1_000,
            **CODE,
        ),
        "taef2": Preset("this suite, for that prior", assumed=TAEF2, eta_z=0.1, restarts=2),
    }

    def __init__(
        self,
        *,
        steps_z: int = 600,
        eta_z: float = 3e-2,
        tv: float = 1e-4,
        noise: Noise = "fixed",
        **common: Unpack[Common],
    ) -> None:
        super().__init__({"z": steps_z}, **common)
        above_zero(eta_z=eta_z)
        not_negative(tv=tv)
        self.eta_z, self.tv, self.redrawn = eta_z, tv, noise == "redrawn"

    def search(self) -> Search:
        state = self.latents()
        yield latent_search(self, state, self.eta_z, lambda v, x: self.tv * total_variation(x), redrawn=self.redrawn)


class GIw(Attack):
    """A copy of the generator's parameters for every image by Adam, from random latents that stay fixed.

    With an untrained prior this is a search with the generator's structure alone (deep image prior).

    Args:
        steps_w: steps on the parameters.
        eta_w: their learning rate.
        tv: weight of mean |dx| + mean |dy| on the normalized image.
        noise: the generator's own noise, fixed or redrawn in every step.
    """

    name = "gi_w"
    needs = frozenset({"labels", "prior"})
    space = {"eta_w": Between(1e-4, 1e-2), "tv": Between(1e-6, 1e-1)}
    presets = {
        "paper": Preset(
            "GIAS, table 1 and appendix G", assumed="steps_w, as gias:paper", steps_w=15_000, tv=1e-4, restarts=4
        ),
        "code": Preset("the authors' code", assumed="steps_w", steps_w=6_000, **CODE),
    }

    def __init__(
        self,
        *,
        steps_w: int = 600,
        eta_w: float = 1e-3,
        tv: float = 1e-4,
        noise: Noise = "fixed",
        **common: Unpack[Common],
    ) -> None:
        super().__init__({"w": steps_w}, **common)
        above_zero(eta_w=eta_w)
        not_negative(tv=tv)
        self.eta_w, self.tv, self.redrawn = eta_w, tv, noise == "redrawn"

    def search(self) -> Search:
        state = self.latents()
        yield parameter_search(self, state, self.eta_w, lambda v, x: self.tv * total_variation(x), redrawn=self.redrawn)


class GIzx(Attack):
    """Latents first; the image of the best latents is where the pixels start, without the generator.

    Args:
        steps_z, steps_x: steps of the two stages.
        eta_z, eta_x: their learning rates; that of the pixels is `assumed`, the source has none.
        tv: weight of mean |dx| + mean |dy| on the normalized image.
        noise: the generator's own noise, fixed or redrawn in every step on the latents.
        keep: after the latents `each` restart continues, or only the `best`, as in the code of GIAS.
    """

    name = "gi_zx"
    needs = frozenset({"labels", "prior"})
    space = {
        "steps_z": (100, 300, 900),
        "eta_z": Between(3e-3, 3e-1),
        "eta_x": Between(3e-3, 3e-1),
        "tv": Between(1e-6, 1e-1),
    }
    presets = {
        "paper": Preset(
            "GIAS, section 5.1 and appendix G",
            assumed="steps_x, which are steps_w of gias:paper; eta_x; otherwise as gias:paper",
            steps_z=1_500,
            steps_x=15_000,
            tv=1e-4,
            restarts=4,
        ),
        "code": Preset(
            "the authors' code, which has no GI-z/x: as its GIAS at 32 px, whose best latents alone go on",
            assumed="steps_x, which are steps_w there; eta_x",
            steps_z=500,
            steps_x=5_000,
            keep="best",
            **CODE,
        ),
    }

    def __init__(
        self,
        *,
        steps_z: int = 300,
        steps_x: int = 300,
        eta_z: float = 3e-2,
        eta_x: float = 3e-2,
        tv: float = 1e-4,
        noise: Noise = "fixed",
        keep: Literal["each", "best"] = "each",
        **common: Unpack[Common],
    ) -> None:
        super().__init__({"z": steps_z, "x": steps_x}, **common)
        above_zero(eta_z=eta_z, eta_x=eta_x)
        not_negative(tv=tv)
        self.eta_z, self.eta_x, self.tv, self.redrawn = eta_z, eta_x, tv, noise == "redrawn"
        self.keep = keep

    def search(self) -> Search:
        state = self.latents()
        yield latent_search(self, state, self.eta_z, self.penalty, redrawn=self.redrawn, keep=self.keep)
        yield Stage(
            name="x",
            variables={"x": self.session.best["images"]},  # with the noise they were judged with
            lr=self.eta_x,
            schedule=multistep,
            penalty=self.penalty,
            project=lambda v, step: self.box(v["x"]),
        )

    def penalty(self, v: Variables, x: Tensor) -> Tensor:
        return self.tv * total_variation(x)
