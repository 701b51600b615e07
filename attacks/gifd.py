"""GIFD: Fang, Chen, Wang, Wang, Xia, *GIFD: A Generative Gradient Inversion Method*, ICCV 2023."""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal, Unpack

import torch
from torch import Tensor

from attacks.base import Attack, Common, Start
from attacks.engine.preset import Preset
from attacks.engine.projections import l1_ball, sphere, sphere_norm
from attacks.engine.regularizers import image_norm, total_variation
from attacks.engine.schedules import ramps
from attacks.engine.space import Between
from attacks.engine.stage import Search, Stage, Variables, split
from priors.base import Generator, advance, decode
from victims.errors import InputError
from victims.ranges import above_zero, not_negative


class Radii(tuple[float, ...]):
    """Numbers above 0, also given as text such as 2000,2500.

    Raises:
        InputError: anything else.
    """

    def __new__(cls, radii: str | Iterable[float]) -> "Radii":
        try:
            found = [float(radius) for radius in (radii.split(",") if isinstance(radii, str) and radii else radii)]
        except ValueError:
            found = [0.0]
        if not all(0 < radius < math.inf for radius in found):
            raise InputError(f"give numbers above 0 with commas between them, such as 2000,2500, not '{radii}'.")
        return super().__new__(cls, found)

    def __str__(self) -> str:
        return ",".join(f"{radius:g}" for radius in self)

    def of(self, phase: int) -> float:
        """The radius of a phase; the last one holds for all later phases."""
        return self[min(phase, len(self) - 1)]


BY_BALL = Radii(())
PUBLISHED: dict[str, Any] = {"steps_each": 1_000, "restarts": 4}


class GIFD(Attack):
    """Latents, then the input features of one generator block after the other, each inside an l1 ball.

    Every phase starts from the variables of least cost of the phase before, and the image of least cost of all phases
    is returned. Variables that are no features (latents, the noises of StyleGAN2) stay on the sphere of their start.

    Radii are published for two generators; the presets have them. For other generators, the radius around a phase's
    start is `ball` times the l1 norm of that start, image by image, independent of the generator's scale.

    Args:
        steps_each: steps of every phase.
        layers: how many blocks' features are searched; 0 is all of the generator's.
        variant: `full`; `e` without the balls; `f` without balls and without a choice by cost: every phase starts from
            the last variables of the phase before, and the last image is returned; `z` latents alone.
        eta: learning rate of Adam, which restarts in every phase: linear warm-up over 5 % of the phase, then constant,
            and half a cosine over the last 75 %.
        tv: weight of mean |dx| + mean |dy| on the normalized image.
        l2: weight of the batch's l2 norm divided by H W.
        ball: radius of a ball in l1 norms of its center; on images of CIFAR-10's training set 0.5 was 2 dB better than
            0.1.
        radii: of the balls around features, layer by layer, in place of `ball`.
        latent_radii: of the balls around latents and noises, phase by phase, for generators that search them in every
            phase.
        start: latents as `drawn` by the prior, or `gaussian`: every row of StyleGAN2's W+ from a Gaussian, whose fit is
            a file beside the weights (see `load_public`), or else of 10 000 mapped latents.
        skip: StyleGAN2's colors from the blocks before the features are `kept` in the image, or `dropped`.
    """

    name = "gifd"
    needs = frozenset({"labels", "prior"})
    space = {"eta": Between(1e-2, 3e-1), "tv": Between(1e-6, 1e-1), "ball": Between(1e-1, 3.0)}
    presets = {
        "paper": Preset(
            "the paper, BigGAN; radii and steps in its supplement, section I",
            assumed="a phase starts from the variables of least cost of the phase before",
            layers=9,
            radii=Radii(range(2_000, 6_001, 500)),
            **PUBLISHED,
        ),
        "paper-stylegan2": Preset(
            "the paper, StyleGAN2; radii and steps in its supplement, section I",
            assumed="a phase starts from the variables of least cost of the phase before; the Gaussian start and the "
            "noise maps of phase k (below number 5 + 2k) are those of the code; colors of earlier blocks stay, there "
            "they are dropped",
            layers=4,
            radii=Radii("2000,3000,4000,5000"),
            latent_radii=Radii("1000,2000,3000,4000,5000"),
            start="gaussian",
            **PUBLISHED,
        ),
        "code": Preset(
            "the authors' code, configs_biggan.yml: 13 phases (a later version has the 10 of the paper)",
            assumed="as in `paper`, the image is that of the best restart by cost (the code: of the last), and a phase "
            "starts from the variables of least cost of the phase before (the code: the last ones)",
            layers=12,
            radii=Radii(range(2_000, 7_501, 500)),
            **PUBLISHED,
        ),
        "code-stylegan2": Preset(
            "the authors' code, configs_stylegan2.yml: 8 phases (a later version has the 5 of the paper)",
            assumed="as `code`; noise of its own for each start (the code: one for all)",
            layers=7,
            radii=Radii("2000,3000,4000,5000,6000,8000,8000"),
            latent_radii=Radii("1000,2000,3000,4000,5000,6000,8000,8000"),
            start="gaussian",
            skip="dropped",
            **PUBLISHED,
        ),
    }

    def __init__(
        self,
        *,
        steps_each: int = 150,
        layers: int = 0,
        variant: Literal["full", "e", "f", "z"] = "full",
        eta: float = 0.1,
        tv: float = 1e-4,
        l2: float = 1e-6,
        ball: float = 0.5,
        radii: Radii = BY_BALL,
        latent_radii: Radii = BY_BALL,
        start: Start = "drawn",
        skip: Literal["kept", "dropped"] = "kept",
        **common: Unpack[Common],
    ) -> None:
        prior = common.get("prior")
        depth = len(prior.blocks) - 1 if isinstance(prior, Generator) else 0
        searched = 0 if variant == "z" else min(layers or depth, depth)
        phases = ["z", *(f"f{k}" for k in range(1, searched + 1))]
        super().__init__(dict.fromkeys(phases, steps_each), **common)
        self.phases = phases
        above_zero(eta=eta, ball=ball)
        not_negative(layers=layers, tv=tv, l2=l2)
        self.variant, self.eta, self.tv, self.l2 = variant, eta, tv, l2
        self.ball, self.radii, self.latent_radii = ball, radii, latent_radii
        self.start, self.skip = start, skip

    def search(self) -> Search:
        prior, state = self.prior, self.latents(self.start)
        for k, phase in enumerate(self.phases):
            if k:
                with torch.no_grad():
                    state = advance(prior, state, k - 1, k)
                if self.skip == "dropped":
                    state.pop("skip", None)
            variables, fixed = split(state, prior.features(k))
            state = yield Stage(
                name=phase,
                variables=variables,
                fixed=fixed,
                decode=partial(self.decode, tuple(state), k),
                lr=self.eta,
                schedule=ramps,
                penalty=self.penalty,
                project=partial(self.project, variables, k),
                latest=self.variant == "f",
            )

    def decode(self, names: tuple[str, ...], k: int, v: Variables) -> Tensor:
        return self.images(decode(self.prior, {name: v[name] for name in names}, k))

    def penalty(self, v: Variables, x: Tensor) -> Tensor:
        return self.tv * total_variation(x) + self.l2 * image_norm(x) / (x.shape[-1] * x.shape[-2])

    def project(self, start: Variables, k: int, v: Variables, step: int) -> None:
        """After every step of phase k: onto spheres around zero, into balls around the start of the phase."""
        for name, tensor in v.items():
            if name != "h":
                tensor.copy_(sphere(tensor, sphere_norm(start[name])))
            if self.variant == "full" and (name == "h" or self.latent_radii):
                tensor.copy_(self.into_ball(tensor, start[name], k, name))

    def into_ball(self, v: Tensor, center: Tensor, k: int, name: str) -> Tensor:
        """Image by image; v and center are (R, B, ...)."""
        moved = (v - center).flatten(0, 1).flatten(1)
        norms = center.flatten(0, 1).flatten(1).abs().sum(1)
        radii, phase = (self.radii, k - 1) if name == "h" else (self.latent_radii, k)
        radius = torch.full_like(norms, radii.of(phase)) if radii else self.ball * norms
        return center + l1_ball(moved, radius).view_as(v)
