"""CI-Net: gradient inversion with an over-parameterized convolutional network, supplement B.3, algorithm 1."""

import warnings
from collections.abc import Callable
from typing import Any, Literal, Unpack

import torch
from torch import Tensor

from attacks.base import Attack, Common
from attacks.engine.distances import cosine, squared_l2
from attacks.engine.optimizers import Adam
from attacks.engine.preset import Preset
from attacks.engine.space import Between
from attacks.engine.stage import Optimizer, Search, Stage, Variables
from priors.overparameterized import (
    LATENT,
    SIZES,
    OverParameterized,
    generate,
    parameter_count,
    power_start,
    power_step,
)
from victims.errors import InputError, Notice
from victims.modules import build
from victims.observation import Observation
from victims.ranges import above_zero
from victims.victim import Gradient, Victim

COSTS = {"squared_l2": squared_l2, "cosine": cosine}
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adam": Adam, "sgd": torch.optim.SGD}
NARROWEST = 32

CODE: dict[str, Any] = {"wider_than": "images_at_32px", "output": "tanh", "restarts": 1}


class CINet(Attack):
    """Parameters of an untrained generator, one for the whole batch, by steps along the sign of their gradient.

    It needs no prior: the network's structure is one, and its batch norm couples the images. Paper and code have other
    costs, optimizers, widths, steps and pixels, see the presets.

    The biases before its batch norms, which the authors' code has, change no image: their gradient is rounding alone,
    of which the sign makes full steps. So other rounding, as with tasks in a group, moves its images more than those of
    other attacks.

    Args:
        steps_w: steps on the parameters.
        eta: learning rate; it does not decay.
        optimizer: adam, or sgd: theta - eta sign(gradient). After 200 steps on two tune tasks (squared_l2, B4) adam has
            31.1 dB and sgd 21.6.
        cost: cosine or squared_l2.
        signed: give only the gradient's sign to the optimizer.
        wider_than: the width starts at 32 and doubles until P(G) > P(F) (`victim`), P(G) > 4 B H W (`images`), or the
            same with P(G) at 32 px (`images_at_32px`).
        output: the pixels are (tanh + 1) / 2 (`unit`), or `tanh` in [-1, 1], although private images are in [0, 1];
            scores are of pixels clamped to [0, 1].
    """

    name = "ci_net"
    needs = frozenset({"labels"})
    space = {"eta": Between(1e-4, 1e-2), "cost": ("cosine", "squared_l2"), "signed": (True, False)}
    presets = {
        "paper": Preset(
            "the supplement, B.3 and algorithm 1; steps of table 5 (256 images of CIFAR-10)",
            assumed="eta is that of the code; pixels are in [0, 1]",
            steps_w=150_000,
            optimizer="sgd",
            cost="squared_l2",
            wider_than="victim",
            restarts=1,
        ),
        "code": Preset(
            "the authors' code on CIFAR-10, with `--victim sigmoid_resnet18 --victim-mode train --mean 0 --std 1`",
            assumed="the images are those of least cost; the code takes those of the best SSIM to the truth",
            steps_w=2_000,
            **CODE,
        ),
        "code-imagenet": Preset(
            "the authors' code on ImageNet, with `--victim sigmoid_resnet18_imagenet --size 256`, else as `code`",
            assumed="as `code`",
            steps_w=30_000,
            **CODE,
        ),
    }

    def __init__(
        self,
        *,
        steps_w: int = 1_000,
        eta: float = 1e-3,
        optimizer: Literal["adam", "sgd"] = "adam",
        cost: Literal["cosine", "squared_l2"] = "cosine",
        signed: bool = True,
        wider_than: Literal["victim", "images", "images_at_32px"] = "images",
        output: Literal["unit", "tanh"] = "unit",
        **common: Unpack[Common],
    ) -> None:
        super().__init__({"w": steps_w}, **common)
        above_zero(eta=eta)
        self.eta, self.optimizer, self.measure, self.signed = eta, OPTIMIZERS[optimizer], COSTS[cost], signed
        self.wider_than, self.output = wider_than, output

    def check(self, observation: Observation) -> None:
        """Refuse images that are gray, not square, or of another size than its networks make."""
        super().check(observation)
        channels, *sides = observation.image_shape
        if channels != 3 or sides[0] != sides[1] or sides[0] not in SIZES:
            cure = "choose another --size" if channels == 3 else "run with --channels 3"
            raise InputError(
                f"{self.name} makes color images of side {', '.join(map(str, SIZES))}, the task has "
                f"{observation.image_shape}; {cure}."
            )
        if self.output == "tanh" and not takes_pixels(observation.victim):
            warnings.warn(
                "output=tanh is of the authors' code, whose client does not normalize; add --mean 0 --std 1.",
                Notice,
                stacklevel=2,
            )

    def distance(self, dummy: Gradient, received: Gradient) -> Tensor:
        return self.measure(dummy, received)

    def width(self) -> int:
        """Channels of G, by the rule of `wider_than`."""
        size = self.observations[0].image_shape[-1]
        counted = 32 if self.wider_than == "images_at_32px" else size
        enough = (
            sum(p.numel() for p in self.victim.parameters.values())
            if self.wider_than == "victim"
            else 4 * self.batch_size * size**2
        )
        width = NARROWEST
        while parameter_count(width, counted) <= enough:
            width *= 2
        return width

    def search(self) -> Search:
        options = {"width": self.width(), "size": self.observations[0].image_shape[-1]}
        G = OverParameterized(**options).to(self.victim.mean)
        z = self.normal((self.batch_size, LATENT))  # fixed
        starts = [dict(build(OverParameterized, **options, seed=seed).named_parameters()) for seed in self.seeds("w")]
        w = {name: torch.stack([start[name].detach() for start in starts]).to(z) for name in starts[0]}
        uv = power_start(G, w)

        def decode(v: Variables) -> Tensor:
            tanh = generate(G, {n: v[n] for n in w}, {n: v[n] for n in uv}, v["z"])
            return self.victim.normalize(tanh if self.output == "tanh" else (tanh + 1) / 2)

        yield Stage(
            name="w",
            variables=w,
            fixed={"z": z, **uv},
            decode=decode,
            lr=self.eta,
            optimizer=self.optimizer,
            project=lambda w, step: power_step(G, dict(w), uv),
            signed=self.signed,
        )


def takes_pixels(victim: Victim) -> bool:
    """Whether images in [0, 1] enter the model as they are."""
    ends = torch.stack([torch.zeros_like(victim.mean), torch.ones_like(victim.mean)])
    return torch.allclose(victim.enter(victim.normalize(ends)), ends, atol=1e-5)
