"""GGL: Li, Zhang, Liu, Liu, *Auditing Privacy Defenses in Federated Learning via Generative Gradient Leakage*, 2022."""

from functools import partial, reduce
from math import log
from typing import Any, Literal, Unpack

import torch
from torch import Tensor

from attacks.base import Attack, Common
from attacks.engine.distances import mean_squared_l2
from attacks.engine.optimizers import CMAES, SMALLEST, Adam
from attacks.engine.preset import Preset
from attacks.engine.regularizers import latent_divergence
from attacks.engine.schedules import constant, ramps
from attacks.engine.space import Between
from attacks.engine.stage import Search, Stage, Variables, split
from priors.base import decode
from victims.ranges import above_zero, at_least, not_negative
from victims.victim import Gradient


class GGL(Attack):
    """Latents by CMA-ES, without gradients, on the squared distance of gradients.

    One step asks for a whole population, and the budget counts each of its candidates. The method was published for
    single images; here the latents of a batch are searched together.

    Args:
        steps_z: rounds of CMA-ES, or steps of Adam.
        optimizer: cma learns from all candidates of a round. nevergrad does as the authors' code with that package: a
            generation has 4 + floor(3 ln d) of them, d the number of entries of the latents, and only one generation
            of a round is learned from, 18 of 50 candidates at d = 128. adam takes gradients.
        population: candidates of a round.
        eta: first step size of CMA-ES.
        eta_adam: learning rate of Adam: linear over 5 % of the steps, half a cosine over the last 25 %.
        start: latents as `drawn` by the prior, `gaussian` as in gifd, `uniform` on (0, 1) where they are normal, as in
            the code for ImageNet, or their `mean`, which is then zero, as in the code for faces.
        squashed: the generator gets tanh z, as in the code for ImageNet.
        alpha_kl: weight of the divergence of a latent's entries from the normal distribution, also for a prior whose
            latents have another one.
    """

    name = "ggl"
    needs = frozenset({"labels", "prior"})
    space = {
        "population": (10, 20, 50),
        "eta": Between(1e-1, 2.0),
        "start": ("drawn", "mean"),
        "alpha_kl": Between(1e-4, 1.0),
    }
    presets = {
        "code": Preset(
            "the authors' code, celeba32_wgan-gp.py with CMA",
            assumed="nevergrad is version 0.4.3, whose CMA starts with step size 1 (version 1: 0.47); the image is the "
            "best of all candidates, where the code takes the best that its strategy learned from, and by their cost "
            "without the divergence",
            steps_z=500,
            optimizer="nevergrad",
            start="mean",
            restarts=1,
        ),
        "code-imagenet": Preset(
            "the authors' code, imagenet_biggan.py with CMA",
            assumed="as `code`",
            steps_z=500,
            optimizer="nevergrad",
            start="uniform",
            squashed=True,
            alpha_kl=0.0,
            restarts=1,
        ),
        "code-adam": Preset(
            "the authors' code, reconstructor.py with Adam",
            assumed="steps_z is the default of its class; its script passes 500. The gradient passes through the "
            "generator: in the code it does not, and only the divergence moves z",
            steps_z=2_500,
            optimizer="adam",
            restarts=1,
        ),
        "gifd": Preset(
            "as GIFD's authors ran it, configs_biggan.yml",
            assumed="as `code`; the best of the restarts, where GIFD's code takes the last",
            steps_z=800,
            optimizer="nevergrad",
            squashed=True,
            restarts=4,
        ),
        "gifd-stylegan2": Preset(
            "as GIFD's authors ran it, configs_stylegan2.yml",
            assumed="as `gifd`; the covariance is diagonal",
            steps_z=800,
            optimizer="nevergrad",
            start="gaussian",
            alpha_kl=0.0,
            restarts=4,
        ),
    }

    def __init__(
        self,
        *,
        steps_z: int = 50,
        optimizer: Literal["cma", "nevergrad", "adam"] = "cma",
        population: int = 50,
        eta: float = 1.0,
        eta_adam: float = 0.1,
        start: Literal["drawn", "gaussian", "uniform", "mean"] = "drawn",
        squashed: bool = False,
        alpha_kl: float = 0.1,
        **common: Unpack[Common],
    ) -> None:
        super().__init__({"z": steps_z}, **common)
        above_zero(eta=eta, eta_adam=eta_adam)
        not_negative(alpha_kl=alpha_kl)
        at_least(SMALLEST, population=population)
        self.optimizer, self.population, self.eta, self.eta_adam = optimizer, population, eta, eta_adam
        self.start, self.squashed, self.alpha_kl = start, squashed, alpha_kl

    def distance(self, dummy: Gradient, received: Gradient) -> Tensor:
        return mean_squared_l2(dummy, received)

    def search(self) -> Search:
        state = self.latents("gaussian" if self.start == "gaussian" else "drawn")
        state |= self.started(state)
        z, fixed = split(state, self.prior.latents)
        yield Stage(
            name="z",
            variables=z,
            fixed=fixed,
            decode=partial(self.decode, tuple(state)),
            penalty=self.penalty,
            **self.by_gradient() if self.optimizer == "adam" else self.gradient_free(z),
        )

    def started(self, state: Variables) -> dict[str, Tensor]:
        """The latents that the search starts from."""
        if self.start == "mean":
            return self.prior.center(state)
        latents = {name: state[name] for name in self.prior.latents}
        return {n: torch.special.ndtr(z) for n, z in latents.items()} if self.start == "uniform" else latents

    def gradient_free(self, z: Variables) -> dict[str, Any]:
        d = sum(latents[0].numel() for latents in z.values())
        generation = 4 + int(3 * log(d)) if self.optimizer == "nevergrad" else None
        optimizer = partial(CMAES, population=self.population, seeds=self.seeds("cma"), generation=generation)
        return {"lr": self.eta, "schedule": constant, "optimizer": optimizer, "population": self.population}

    def by_gradient(self) -> dict[str, Any]:
        return {"lr": self.eta_adam, "schedule": partial(ramps, down=0.25), "optimizer": Adam}

    def decode(self, names: tuple[str, ...], v: Variables) -> Tensor:
        latents = self.prior.latents
        return self.images(
            decode(self.prior, {n: v[n].tanh() if self.squashed and n in latents else v[n] for n in names})
        )

    def penalty(self, v: Variables, x: Tensor) -> Tensor:
        return self.alpha_kl * reduce(torch.add, (latent_divergence(v[name]) for name in self.prior.latents))
