"""IGIMS and IGIMS*: Fang, Wang, Li, Cybersecurity 2024, algorithm 1: the iterative search on mixed spaces."""

from functools import partial, reduce
from typing import Any, Unpack

import torch
from torch import Tensor

from attacks.base import Attack, Common
from attacks.engine.optimizers import CMAES, SMALLEST
from attacks.engine.preset import Preset
from attacks.engine.regularizers import TINY, latent_divergence, total_variation
from attacks.engine.schedules import constant, multistep
from attacks.engine.space import Between
from attacks.engine.stage import Search, Stage, Variables, split
from attacks.gias import NORMALIZED
from priors.base import decode_each
from victims.ranges import above_zero, at_least, not_negative


class IGIMS(Attack):
    """Rounds of two stages: latents by CMA-ES, then a copy of the generator's parameters for every image by Adam.

    Each round starts from the parameters and latents of the round before. The paper limits "the update step in each
    round, by reducing the learning rates and epochs of internal search" and does not say how: here the rates of a round
    are `decay` times those before, and M and N stay the same.
    With an untrained prior this is its untrained variant.

    Args:
        rounds: T.
        steps_z: M, generations of CMA-ES in a round; a generation costs `population` victim gradients.
        steps_w: N, steps of Adam on the parameters in a round.
        population: candidates of a generation.
        sigma: first step size of CMA-ES.
        eta_w: learning rate of Adam on the parameters.
        decay: factor on step size and rates from round to round.
        tv: weight of mean |dx| + mean |dy| on the normalized image.
        alpha_kl: weight of the divergence of a latent's entries from the normal distribution, also for a prior whose
            latents have another one; `assumed`.
        lambda_w: weight of |w - w_0|_2 of every image; stated for BigGAN alone, else `assumed`.
    """

    name = "igims"
    needs = frozenset({"labels", "prior"})
    space = {
        "rounds": (1, 2, 3),
        "steps_z": (2, 5, 10),
        "population": (10, 20, 50),
        "eta_w": Between(1e-4, 1e-2),
        "tv": Between(1e-6, 1e-1),
        "lambda_w": Between(1e-5, 1e-2),
    }
    presets = {
        "paper": Preset(
            "the paper, appendix A, DCGAN on CIFAR and FFHQ",
            assumed="T, for about the steps of GIAS's code: 4 x (300 + 1000), where that has 500 + 5000; "
            "rates are GIAS's, halved every round, with the decay of w in each; "
            "the budget of 50 is the population; alpha_kl, lambda_w; one start",
            rounds=4,
            steps_z=300,
            steps_w=1_000,
            tv=1e-6,
            restarts=1,
        ),
        "paper-imagenet": Preset(
            "the paper, appendix A, BigGAN on ImageNet",
            assumed=f"rates are GIAS's; the budget of 50 is the population; alpha_kl; one start; {NORMALIZED}",
            rounds=1,
            steps_z=300,
            steps_w=1_000,
            tv=1e-4,
            eta_w=1e-5,
            lambda_w=1.0,
            restarts=1,
        ),
    }

    def __init__(
        self,
        *,
        rounds: int = 2,
        steps_z: int = 10,
        steps_w: int = 200,
        population: int = 50,
        sigma: float = 1.0,
        eta_w: float = 1e-3,
        decay: float = 0.5,
        tv: float = 1e-4,
        alpha_kl: float = 1e-3,
        lambda_w: float = 1e-3,
        **common: Unpack[Common],
    ) -> None:
        """
        Raises:
            InputError: an option that means nothing.
        """
        at_least(1, rounds=rounds)
        at_least(SMALLEST, population=population)
        above_zero(sigma=sigma, eta_w=eta_w, decay=decay)
        not_negative(tv=tv, alpha_kl=alpha_kl, lambda_w=lambda_w)
        round_ = {"z": steps_z, "w": steps_w}
        super().__init__({f"{space}{t}": n for t in range(1, rounds + 1) for space, n in round_.items()}, **common)
        self.rounds, self.population, self.sigma, self.eta_w = rounds, population, sigma, eta_w
        self.decay, self.tv, self.alpha_kl, self.lambda_w = decay, tv, alpha_kl, lambda_w

    def search(self) -> Search:
        z = self.start()
        w_0 = dict(self.prior.named_parameters())
        w = {name: p.expand(self.instances, self.batch_size, *p.shape) for name, p in w_0.items()}
        images = partial(self.generated, tuple(w), tuple(z))
        for t in range(1, self.rounds + 1):
            rate = self.decay ** (t - 1)
            latents, fixed = split({**z, **w}, self.prior.latents)
            found = yield Stage(
                name=f"z{t}",
                variables=latents,
                fixed=fixed,
                decode=images,
                penalty=self.penalty_z,
                **self.latent_optimizer(t, rate),
            )
            z = {name: found[name] for name in z}
            found = yield Stage(
                name=f"w{t}",
                variables=w,
                fixed=z,
                decode=images,
                lr=self.eta_w * rate,
                schedule=multistep,
                penalty=partial(self.penalty_w, w_0),
            )
            w = {name: found[name] for name in w}

    def start(self) -> dict[str, Tensor]:
        """The start of the latent search: mu = 0, Sigma = I."""
        state = self.latents()
        return {**state, **self.prior.center(state)}

    def latent_optimizer(self, t: int, rate: float) -> dict[str, Any]:
        return {
            "lr": self.sigma * rate,
            "schedule": constant,
            "optimizer": partial(CMAES, population=self.population, seeds=self.seeds("cma", t)),
            "population": self.population,
        }

    def generated(self, w: tuple[str, ...], z: tuple[str, ...], v: Variables) -> Tensor:
        return self.images(decode_each(self.prior, {n: v[n] for n in w}, {n: v[n] for n in z}))

    def penalty_z(self, v: Variables, x: Tensor) -> Tensor:
        divergence = reduce(torch.add, (latent_divergence(v[name]) for name in self.prior.latents))
        return self.tv * total_variation(x) + self.alpha_kl * divergence

    def penalty_w(self, w_0: Variables, v: Variables, x: Tensor) -> Tensor:
        moved2 = reduce(torch.add, ((v[name] - p).flatten(2).square().sum(2) for name, p in w_0.items()))
        return self.tv * total_variation(x) + self.lambda_w * moved2.clamp_min(TINY).sqrt().sum(1)


class IGIMSAdam(IGIMS):
    """IGIMS* is IGIMS with Adam on the latents, from random starts, in place of CMA-ES.

    `population` and `sigma` have no effect.

    Args:
        eta_z: learning rate of Adam on the latents.
    """

    name = "igims_adam"
    space = {
        "rounds": (1, 2, 3),
        "steps_z": (10, 50, 200),
        "eta_z": Between(3e-3, 3e-1),
        "eta_w": Between(1e-4, 1e-2),
        "tv": Between(1e-6, 1e-1),
        "lambda_w": Between(1e-5, 1e-2),
    }
    presets = {
        "paper": Preset(
            "the paper, appendix A, DCGAN on CIFAR and FFHQ",
            assumed="T, for about the steps of GIAS's code: 3 x (1000 + 1000), where that has 500 + 5000; "
            "rates are GIAS's, halved every round, with their decay in each stage; alpha_kl, lambda_w; one start",
            **{**IGIMS.presets["paper"], "rounds": 3, "steps_z": 1_000},
        ),
        "paper-imagenet": Preset(
            "the paper, appendix A, BigGAN on ImageNet",
            assumed=f"rates are GIAS's; alpha_kl; one start; {NORMALIZED}",
            **{**IGIMS.presets["paper-imagenet"], "steps_z": 1_000},
        ),
    }

    def __init__(self, *, eta_z: float = 3e-2, **options: Any) -> None:
        super().__init__(**options)
        above_zero(eta_z=eta_z)
        self.eta_z = eta_z

    def start(self) -> dict[str, Tensor]:
        return self.latents()

    def latent_optimizer(self, t: int, rate: float) -> dict[str, Any]:
        return {"lr": self.eta_z * rate, "schedule": multistep}
