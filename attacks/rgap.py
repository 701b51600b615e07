"""R-GAP: Zhu & Blaschko, *R-GAP: Recursive Gradient Attack on Privacy*, ICLR 2021, algorithm 1."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Unpack

import torch
from scipy.special import expit
from torch import Tensor

from attacks.base import Attack, Common
from attacks.closed_form.chain import INVERSES, Link, back, chain
from attacks.closed_form.recursion import LayerReport, margins, rebuild_input
from attacks.engine.stage import Reconstruction, Search, Stage
from victims.errors import Notice
from victims.observation import Observation
from victims.victim import Gradient

LEEWAY = 0.05  # root mean square by which the pixels of an image that is only nearly right may leave [0, 1]

Solve = Callable[[Link, Tensor, Tensor, Tensor], LayerReport]
"""A layer, its output z, k = d loss / d z and g = d loss / d weight -> its input."""


@dataclass(frozen=True)
class Reading:
    """What an update says under one label.

    Attributes:
        image: (C, H, W), normalized; zeros stand for what could not be solved.
        label: 0 or 1.
        margins: the one that was taken, then its twin where there is one.
        layers: every layer with a weight, last layer first; none where the update is zero or not finite.
    """

    image: Tensor
    label: int
    margins: list[float]
    layers: list[LayerReport]


class RGAP(Attack):
    """One image in closed form: layer by layer, last to first, the input by least squares.

    What the last layer leaves open:

    - The label y = +-1: (y, x) and (-y, -x) have the same gradient there. LeakyReLU's outputs are mostly positive,
      so the first run takes the label that makes their sum positive and the second run the other; further runs
      repeat these two. Below the last layer the wrong one contradicts itself, and the matching cost decides.
    - The margin m = y u, where the label agrees with the prediction: it has two roots, and their images are
      multiples of each other with the very same gradient in every layer (the paper's twin data). No cost tells them
      apart, but pixels lie in [0, 1]: the larger image is taken unless it leaves them. The paper's code is told
      the label and makes it the opposite of the prediction, so it meets neither question.

    Args:
        balanced: scale the gradient equations of each convolution to the size of its weight equations; the paper
            stacks them as they are. k depends on the signs of what was rebuilt and is else exact, while the weight
            equations carry all error of the layer after. But k shrinks from layer to layer, so as they are the weight
            equations outweigh it and errors explode with depth (GIAS, figure A2); balanced, they hardly grow.

    Attributes:
        reports: for each run, tasks first, what each layer's system determined, last layer first; empty where the
            update is zero or not finite.
    """

    name = "rgap"
    labels = "inferred"
    analytic = True
    made_for = {"victim": "fcn3", "batch": 1, "defense": "none"}
    presets = {"paper": {"restarts": 2}, "balanced": {"balanced": True, "restarts": 2}}
    instead: ClassVar[str] = "the least-norm input is taken"  # where a layer does not determine its input

    def __init__(self, *, balanced: bool = False, **common: Unpack[Common]) -> None:
        super().__init__({"x": 1}, **common)
        self.balanced = balanced

    def check(self, observation: Observation) -> None:
        """As the base, and refuse a victim that is no chain of invertible layers.

        Raises:
            InputError: names the first layer that cannot be gone back through, and why.
        """
        super().check(observation)
        chain(observation.victim, observation.image_shape)

    def search(self) -> Search:
        readings = [reading for task in range(len(self.observations)) for reading in self.readings(task)]
        self.reports = [reading.layers for reading in readings]
        self.warn_of_rank()
        yield Stage(
            name="x",
            variables={"x": torch.stack([reading.image for reading in readings])[:, None].to(self.victim.mean)},
            fixed={"y": torch.tensor([[reading.label] for reading in readings], device=self.victim.mean.device)},
            labels=lambda v: v["y"],
            decode=lambda v: v["x"],
            lr=0.0,
        )

    def result(self) -> Reconstruction:
        layers = [self.reports[run] for run in self._best_runs(self._best_cost).tolist()]
        return replace(super().result(), layers=layers)

    def readings(self, task: int) -> list[Reading]:
        """One for each run of a task."""
        labels = [self.reading(self.observations[task], likely) for likely in (True, False)[: self.restarts]]
        return [labels[run % len(labels)] for run in range(self.restarts)]

    def reading(self, observation: Observation, likely: bool) -> Reading:
        """Under the likely label, or the other."""
        nothing = torch.zeros(observation.image_shape, dtype=torch.float64)
        g = in_double(observation.gradient())
        if not 0 < sum(float(tensor.square().sum()) for tensor in g.values()) < math.inf:
            return Reading(nothing, 0, [], [])
        links = chain(observation.victim, observation.image_shape)
        g_d, W_d = g[links[-1].parameter], links[-1].module.weight
        m, *twin = margins(float((g_d * W_d).sum()))
        y = -1 if (g_d.sum() > 0) == likely else 1  # x_d = g_d / k_d, and k_d has the sign of -y
        layers = recursion(links, g, y, m, partial(rebuild_input, balanced=self.balanced))
        x = layers[-1].input.reshape(observation.image_shape)
        if twin and self.outside(x * twin[0] / m) < LEEWAY:
            layers = [replace(layer, input=layer.input * twin[0] / m) for layer in layers]
            x, m, twin = x * twin[0] / m, twin[0], [m]
        return Reading(x if x.isfinite().all() else nothing, (y + 1) // 2, [m, *twin], layers)

    def outside(self, x: Tensor) -> float:
        """Root mean square of how far the pixels of a normalized image (C, H, W) lie outside [0, 1]."""
        pixels = self.victim.denormalize(x.to(self.victim.mean))
        return float((pixels - pixels.clamp(0, 1)).square().mean().sqrt())

    def warn_of_rank(self) -> None:
        """Name the layers that do not determine their inputs."""
        for report in {r.layer: r for reports in self.reports for r in reports if r.rank < r.unknowns}.values():
            warnings.warn(
                f"the layer {report.layer} does not determine its input: rank {report.rank} for {report.unknowns} "
                f"unknowns; {self.instead}, and all layers before it inherit its error.",
                Notice,
                stacklevel=2,
            )


def in_double(update: Gradient) -> Gradient:
    return {name: g.detach().cpu().double() for name, g in update.items()}


def recursion(links: list[Link], g: Gradient, y: int, m: float, solve: Solve) -> list[LayerReport]:
    """Algorithm 1: every layer's input, last layer first.

    Args:
        links: the victim's layers, first to last.
        g: d loss / d weight of each.
        y: the label, -1 or 1.
        m: the margin y u, of the logit u.
        solve: for the input of a layer with a weight.
    """
    z = torch.tensor([y * m], dtype=torch.float64)
    k = torch.tensor([-y * float(expit(-m))], dtype=torch.float64)
    reports: list[LayerReport] = []
    for link in reversed(links):
        if type(link.module) in INVERSES:
            x = INVERSES[type(link.module)](link.module, z).reshape(link.input_shape)
        else:
            reports.append(solve(link, z, k, g[link.parameter]))
            x = reports[-1].input
        k = back(link.module, x, k)
        z = x
    return reports
