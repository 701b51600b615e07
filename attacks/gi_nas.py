"""GI-NAS: Yu et al., *Boosting Gradient Inversion Attacks Through Adaptive Neural Architecture Search*, TIFS 2025."""

from collections.abc import Sequence
from functools import partial
from typing import Unpack

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from attacks.base import Attack, Common
from attacks.engine.preset import Preset
from attacks.engine.space import Between
from attacks.engine.stage import Search, Stage, Variables
from priors.skip_unets import SkipUNet, draw_unet, flatten, generate
from victims.errors import InputError
from victims.observation import Observation
from victims.ranges import above_zero, at_least, not_negative
from victims.seeds import seed_of

DOWNSAMPLING = 32  # the sides of an image are this many times those of a U-Net's smallest map


class GINAS(Attack):
    """The untrained U-Net whose initial output has the least cost of many, then its parameters, for the whole batch.

    Which network it is depends on the update: candidates differ in their skip connections, in how they upsample and in
    their initial parameters, and each is scored by one forward, without training. The budget counts every candidate.
    It needs no prior: the network's structure is one, as in `ci_net`, and its batch norm couples the images.

    Args:
        steps_g: rounds of candidates; 0 takes the first network as it is.
        population: candidates of a round.
        steps_w: steps on the parameters of the chosen one.
        eta: learning rate of Adam; it does not decay (the code has a switch for it, which is off).
        signed: give only the gradient's sign to Adam.
        width: channels of every map of a network, a multiple of 16.
    """

    name = "gi_nas"
    needs = frozenset({"labels"})
    space = {"steps_g": (0, 1, 4), "eta": Between(3e-4, 3e-2), "signed": (True, False)}
    presets = {
        "code": Preset(
            "the authors' code, with `--victim sigmoid_resnet18 --victim-mode train --mean 0 --std 1 --batch 4`; on "
            "ImageNet with `--victim sigmoid_resnet18_imagenet --size 256`",
            assumed="its list of candidates is not published: 5000, every skip with probability 1/2, all upsamplings "
            "alike; only the last convolution has a bias; the images are those of least cost (the code: the last)",
            steps_g=100,
            population=50,
            steps_w=30_000,
            eta=1e-3,
            width=128,
            restarts=1,
        ),
    }

    def __init__(
        self,
        *,
        steps_g: int = 4,
        population: int = 8,
        steps_w: int = 600,
        eta: float = 3e-3,
        signed: bool = True,
        width: int = 32,
        **common: Unpack[Common],
    ) -> None:
        if common.get("compile", "auto") == "auto":
            common["compile"] = "off"  # every instance has its own network, which would be compiled for it alone
        not_negative(steps_g=steps_g)
        super().__init__({"g": steps_g, "w": steps_w} if steps_g else {"w": steps_w}, **common)
        at_least(2, population=population)
        above_zero(eta=eta)
        if width < 1 or width % 16:
            raise InputError(f"width is {width}; give a multiple of 16.")
        self.population, self.eta, self.signed, self.width = population, eta, signed, width

    def check(self, observation: Observation) -> None:
        """Refuse sides that are no multiples of 32 px, and single images of 32 px."""
        super().check(observation)
        _, *sides = observation.image_shape
        if any(side % DOWNSAMPLING for side in sides):
            raise InputError(
                f"{self.name} makes images whose sides are multiples of {DOWNSAMPLING}, the task has "
                f"{observation.image_shape}; choose another --size."
            )
        if sides == [DOWNSAMPLING, DOWNSAMPLING] and observation.batch_size == 1:
            raise InputError(
                f"{self.name} has batch norm on maps of one pixel for images of {DOWNSAMPLING} px, which needs two "
                "images; run with --batch 2 or more, or --size 64."
            )

    def network(self, seed: int, n: int) -> SkipUNet:
        """Candidate n of the instance with this seed, with its initial parameters."""
        channels = self.observations[0].image_shape[0]
        return draw_unet(channels=channels, width=self.width, seed=seed_of(seed, n)).to(self.victim.mean)

    def search(self) -> Search:
        seeds, z = self.seeds("w"), self.noise()  # z is fixed
        r, n = torch.arange(len(z), device=z.device), torch.zeros(len(z), dtype=torch.long, device=z.device)

        def initial_output(v: Variables) -> Tensor:
            drawn = (self.network(seeds[r], n) for r, n in zip(v["r"].tolist(), v["n"].tolist(), strict=True))
            return self.victim.normalize(torch.stack([G(z) for G, z in zip(drawn, v["z"], strict=True)]))

        if "g" in self.plan:
            found = yield Stage(
                name="g",
                variables={"n": n},
                fixed={"r": r, "z": z},
                decode=initial_output,
                lr=0.0,
                optimizer=partial(InTurn, population=self.population),
                population=self.population,
            )
            n = found["n"]
        networks = [self.network(*pair) for pair in zip(seeds, n.tolist(), strict=True)]

        def output(v: Variables) -> Tensor:
            G = (networks[r] for r in v["r"].tolist())  # r is on the CPU: reading it waits for no device
            return self.victim.normalize(torch.stack(list(map(generate, G, v["w"], v["z"]))))

        yield Stage(
            name="w",
            variables={"w": pad_sequence([flatten(G) for G in networks], batch_first=True)},
            fixed={"r": r.cpu(), "z": z},
            decode=output,
            lr=self.eta,
            signed=self.signed,
        )


class InTurn:
    """Asks for the candidates 0, 1, 2, ... of every instance."""

    def __init__(self, variables: Sequence[Tensor], lr: float, *, population: int) -> None:
        (self.n,), self.population, self.first = variables, population, 0
        self.param_groups = [{"lr": lr}]

    def ask(self) -> list[Tensor]:
        round = torch.arange(self.first, self.first + self.population, device=self.n.device)
        self.first += self.population
        return [round.expand(len(self.n), -1)]

    def tell(self, values: Tensor) -> None:
        """There is nothing to learn from: the session keeps the best."""
