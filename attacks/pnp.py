"""Plug and play: a denoiser as the prior of natural images, for any attack on pixels.

The idea is that of Venkatakrishnan, Bouman, Wohlberg, *Plug-and-Play Priors for Model Based Reconstruction*, 2013, and
Romano, Elad, Milanfar, *The Little Engine That Could: Regularization by Denoising*, 2017. No paper runs this form of it
on gradients: what is here is this suite's own.
"""

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from attacks.base import Attack
from attacks.engine.plug_and_play import annealed, plug_and_play
from attacks.engine.preset import Preset
from attacks.engine.space import Between, Space
from attacks.engine.stage import Search, Stage, Variables
from attacks.gi import GI
from attacks.ig import IG
from priors.base import Denoiser
from victims.errors import InputError
from victims.ranges import above_zero, not_negative

DENOISING: Space = {"eta_d": Between(1e-2, 1.0), "sigma": Between(3e-2, 2e-1), "sigma_end": Between(5e-3, 5e-2)}


class PlugAndPlay(Attack):
    """Makes an attack on pixels a plug-and-play one: `class Mine(PlugAndPlay, MyAttack)`.

    After every step of a stage that searches x, and what that stage does then, x <- x + eta_d (D_sigma(x) - x). Other
    stages stay as they are.

    The last images are returned, not those of least cost, which have more noise: the cost rises in the end, where steps
    to the denoised images prevail. With ffdnet and eta_d = 0.1 this gives 16.5 dB in place of 14.6 (tune split of
    CIFAR-10, convnet, B = 4, sparsification:0.9, 300 steps). Of restarts, the one is chosen whose last images cost
    least.

    Args:
        eta_d: the part of the way to the denoised images, from 0 to 1.
        sigma, sigma_end: noise for the denoiser at the first and at the last steps, in images in [0, 1].
        options: those of the attack.
    """

    takes = Denoiser
    default_prior = "denoiser-photos"
    presets: ClassVar[dict[str, Preset]] = {}  # those of the attack know of no denoiser

    prior: Denoiser  # type: ignore[assignment]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.needs = cls.needs | super().needs | {"prior"}  # its own, and those of the attack

    def __init__(self, *, eta_d: float = 0.1, sigma: float = 0.2, sigma_end: float = 0.02, **options: Any) -> None:
        """
        Raises:
            InputError: an option that means nothing, or more noise than the denoiser was made for.
        """
        super().__init__(**options)
        not_negative(eta_d=eta_d)
        above_zero(sigma=sigma, sigma_end=sigma_end)
        if eta_d > 1:
            raise InputError(f"eta_d is {eta_d:g}; give a part of the way, from 0 to 1.")
        strongest = max(sigma, sigma_end)
        if strongest > self.prior.sigma_max:
            raise InputError(f"sigma is {strongest:g}; this denoiser takes at most {self.prior.sigma_max:.3g}.")
        self.eta_d, self.sigma, self.sigma_end = eta_d, sigma, sigma_end

    def search(self) -> Search:
        search = super().search()
        found: dict[str, Tensor] | None = None
        while True:
            try:
                stage = search.send(found)  # type: ignore[arg-type]  # None at the start
            except StopIteration:
                return
            found = yield self.denoised(stage)

    def denoised(self, stage: Stage) -> Stage:
        """The stage with a step of the denoiser after each of its own, if it searches x."""
        steps = self.plan[stage.name]

        def project(v: Variables, step: int) -> None:
            if stage.project:
                stage.project(v, step)
            sigma = annealed(self.sigma, self.sigma_end, step, steps)
            plug_and_play(v["x"], self.victim, self.prior, sigma, self.eta_d)

        return replace(stage, project=project, latest=True) if "x" in stage.variables else stage


class PnP(PlugAndPlay, IG):
    """IG with a denoiser: pixels by signed Adam on the cosine cost, and a step to the denoised image after each."""

    name = "pnp"
    space = {**IG.space, **DENOISING}


class PnPGI(PlugAndPlay, GI):
    """GI with a denoiser."""

    name = "pnp_gi"
    space = {**GI.space, **DENOISING}
