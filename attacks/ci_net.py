"""CI-Net: gradient inversion with an over-parameterized convolutional network, supplement B.3, algorithm 1."""

from typing import Literal, Unpack

import torch

from attacks.base import Attack, Common
from attacks.engine.distances import cosine, squared_l2
from attacks.engine.preset import Preset
from attacks.engine.stage import Search, Stage
from priors.overparameterized import (
    LATENT,
    SIZES,
    OverParameterized,
    generate,
    parameter_count,
    power_start,
    power_step,
)
from victims.errors import InputError
from victims.observation import Observation
from victims.victim import Gradient, build

COSTS = {"squared_l2": squared_l2, "cosine": cosine}
NARROWEST = 32


class CINet(Attack):
    """Parameters of an untrained generator, one for the whole batch, by Adam on the sign of their gradient.

    It needs no prior: the network's structure is one, and its batch norm couples the images. Paper and code disagree in
    three places, so there are two presets. Cost: the paper has the squared l2 distance, the code one cosine. Width: the
    paper wants more parameters than the victim has, the code more than 4 B H W. Steps: the paper states 150 000 (256
    CIFAR-10 images), the code 2000 on CIFAR-10 and 30 000 on ImageNet.

    Args:
        steps_w: steps on the parameters.
        eta: learning rate of Adam; it does not decay.
        cost: cosine or squared_l2.
        signed: give only the gradient's sign to Adam.
        wider_than: the width starts at 32 and doubles until P(G) > P(F) (`victim`) or P(G) > 4 B H W (`images`).
    """

    name = "ci_net"
    needs = frozenset({"labels"})
    presets = {
        "paper": Preset(
            "the supplement, B.3 and algorithm 1", steps_w=150_000, cost="squared_l2", wider_than="victim", restarts=1
        ),
        "code": Preset("the authors' code on CIFAR-10", steps_w=2_000, restarts=1),
        "code-imagenet": Preset("the authors' code on ImageNet", steps_w=30_000, restarts=1),
    }

    def __init__(
        self,
        *,
        steps_w: int = 1_000,
        eta: float = 1e-3,
        cost: Literal["cosine", "squared_l2"] = "cosine",
        signed: bool = True,
        wider_than: Literal["victim", "images"] = "images",
        **common: Unpack[Common],
    ) -> None:
        super().__init__({"w": steps_w}, **common)
        self.eta, self.measure, self.signed, self.wider_than = eta, COSTS[cost], signed, wider_than

    def check(self, observation: Observation) -> None:
        super().check(observation)
        channels, *sides = observation.image_shape
        if channels != 3 or sides[0] != sides[1] or sides[0] not in SIZES:
            cure = "choose another --size" if channels == 3 else "run with --channels 3"
            raise InputError(
                f"{self.name} makes color images of side {', '.join(map(str, SIZES))}, the task has "
                f"{observation.image_shape}; {cure}."
            )

    def distance(self, dummy: Gradient, received: Gradient) -> torch.Tensor:
        return self.measure(dummy, received)

    def width(self) -> int:
        """Channels of G, by the rule of `wider_than`."""
        size = self.observations[0].image_shape[-1]
        enough = (
            sum(p.numel() for p in self.victim.parameters.values())
            if self.wider_than == "victim"
            else 4 * self.batch_size * size**2
        )
        width = NARROWEST
        while parameter_count(width, size) <= enough:
            width *= 2
        return width

    def search(self) -> Search:
        options = {"width": self.width(), "size": self.observations[0].image_shape[-1]}
        G = OverParameterized(**options).to(self.victim.mean)
        z = self.draw(lambda generator: torch.randn(self.batch_size, LATENT, generator=generator))  # fixed
        starts = [dict(build(OverParameterized, **options, seed=seed).named_parameters()) for seed in self.seeds("w")]
        w = {name: torch.stack([start[name].detach() for start in starts]).to(z) for name in starts[0]}
        uv = power_start(G, w)
        yield Stage(
            name="w",
            variables=w,
            fixed={"z": z, **uv},
            decode=lambda v: self.victim.normalize(generate(G, {n: v[n] for n in w}, {n: v[n] for n in uv}, v["z"])),
            lr=self.eta,
            project=lambda w, step: power_step(G, dict(w), uv),
            signed=self.signed,
        )
