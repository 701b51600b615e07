"""Inverting Gradients: Geiping, Bauermeister, Dröge, Moeller, NeurIPS 2020."""

from typing import Literal, Unpack

from torch import Tensor
from torch.nn.functional import pad

from attacks.base import Attack, Common
from attacks.engine.distances import chosen_tensors, cosine, squared_l2, target_of, tensor_choice
from attacks.engine.preset import Preset
from attacks.engine.regularizers import total_variation
from attacks.engine.schedules import multistep
from attacks.engine.space import Between
from attacks.engine.stage import Search, Stage, Variables
from victims.errors import InputError
from victims.ranges import above_zero, not_negative
from victims.victim import Gradient

COSTS = {"cosine": cosine, "squared_l2": squared_l2}


def median_filter(images: Tensor) -> Tensor:
    """The median of the 3x3 neighborhood of every pixel, with mirrored borders: (R, B, C, H, W) -> the same."""
    patches = pad(images.flatten(0, 1), (1, 1, 1, 1), mode="reflect").unfold(-2, 3, 1).unfold(-2, 3, 1)
    return patches.flatten(-2).median(-1).values.view_as(images)


class IG(Attack):
    """Pixels by signed Adam on the cosine cost plus total variation, boxed (GI-x).

    Args:
        steps_x: steps on the pixels.
        eta: learning rate of Adam.
        tv: weight of mean |dx| + mean |dy| on the normalized image.
        signed: give only the gradient's sign to Adam.
        boxed: clamp to the range of pixels after every step.
        cost: one cosine over all tensors, or the squared distance.
        tensors: which of them are in the cost: all, or firstK, lastK or topK, the K of largest norm, such as top10.
        compress: share of every tensor's entries left out of the cost, the smallest ones of the received update.
        median_every: number of steps between two 3x3 median filters; 0 is never.
    """

    name = "ig"
    needs = frozenset({"labels"})
    space = {"eta": Between(1e-2, 3e-1), "tv": Between(1e-6, 1e-1), "signed": (True, False)}
    presets = {
        "paper": Preset("the paper, untrained ConvNet on CIFAR-10", steps_x=24_000, tv=1e-6, restarts=1),
        "paper-resnet18": Preset(
            "the authors' notebook, untrained ResNet-18 on ImageNet",
            steps_x=24_000,
            tv=1e-6,
            tensors="top10",
            median_every=500,
            restarts=4,
        ),
        "paper-imagenet": Preset("the paper, trained ResNet on ImageNet", steps_x=24_000, tv=1e-1, restarts=8),
        "paper-cifar100": Preset(
            "the authors' notebook, trained ResNet-32-10, 100 images of CIFAR-100",
            assumed="one start: of four, the notebook ended three early",
            steps_x=24_000,
            tv=1e-2,
            restarts=1,
        ),
        "paper-fedavg": Preset(
            "the authors' notebook, FedAvg, with `--match fa`", steps_x=24_000, eta=1.0, tv=1e-6, restarts=8
        ),
        "code": Preset("the authors' code, rec_mult", steps_x=4_800, tv=1e-4, restarts=1),
        "gias": Preset(
            "GI-x of GIAS, appendix G and code, which never takes the sign",
            assumed="steps are the default of the code, and the variation is its mean absolute differences",
            steps_x=4_800,
            tv=1e-4,
            signed=False,
            restarts=4,
        ),
        "gifd": Preset(
            "as GIFD's authors ran it",
            assumed="the best of the restarts, where GIFD's code takes the last",
            steps_x=15_000,
            tv=1e-4,
            signed=False,
            restarts=4,
        ),
        "igims-cifar": Preset(
            "as IGIMS's authors ran it, untrained ResNet-18 on CIFAR-10",
            assumed="one start",
            steps_x=8_000,
            tv=1e-6,
            restarts=1,
        ),
        "igims-imagenet": Preset(
            "as IGIMS's authors ran it on ImageNet", assumed="one start", steps_x=20_000, tv=1e-4, restarts=1
        ),
    }

    def __init__(
        self,
        *,
        steps_x: int = 600,
        eta: float = 0.1,
        tv: float = 1e-4,
        signed: bool = True,
        boxed: bool = True,
        cost: Literal["cosine", "squared_l2"] = "cosine",
        tensors: str = "all",
        compress: float = 0.0,
        median_every: int = 0,
        **common: Unpack[Common],
    ) -> None:
        """
        Raises:
            InputError: an option that means nothing.
        """
        super().__init__({"x": steps_x}, **common)
        above_zero(eta=eta)
        not_negative(tv=tv)
        if not 0 <= compress < 1:
            raise InputError(f"compress is {compress}; give a share from 0 up to but not including 1.")
        if median_every < 0:
            raise InputError(f"median_every is {median_every}; give a number of steps, or 0 for no filter.")
        tensor_choice(tensors)  # refuses a wrong text here, not at the first step
        self.eta, self.tv, self.signed, self.boxed = eta, tv, signed, boxed
        self.measure, self.tensors, self.compress, self.median_every = COSTS[cost], tensors, compress, median_every

    def distance(self, dummy: Gradient, received: Gradient) -> Tensor:
        weights = chosen_tensors(dummy, received, self.tensors)
        if self.compress:
            mask, received = target_of(received).compressed(self.compress)
            dummy = mask(dummy)
        return self.measure(dummy, received, weights)

    def project(self, v: Variables, step: int) -> None:
        if self.boxed:
            self.box(v["x"])
        if self.median_every and step % self.median_every == 0:
            v["x"].copy_(median_filter(v["x"]))

    def search(self) -> Search:
        yield Stage(
            name="x",
            variables={"x": self.noise()},
            lr=self.eta,
            schedule=multistep,
            penalty=lambda v, x: self.tv * total_variation(x),
            project=self.project,
            signed=self.signed,
        )
