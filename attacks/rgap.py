"""R-GAP: Zhu & Blaschko, *R-GAP: Recursive Gradient Attack on Privacy*, ICLR 2021, algorithm 1."""

import math
import warnings
from dataclasses import replace
from typing import Unpack

import torch
from scipy.special import expit
from torch import Tensor

from attacks.base import Attack, Common
from attacks.recursion import INVERSES, LayerReport, Link, back, chain, margins, rebuild_input
from attacks.stage import Reconstruction, Search, Stage
from victims.errors import Notice
from victims.observation import Observation
from victims.victim import Gradient

LEEWAY = 0.05  # root mean square by which the pixels of an image that is only nearly right may leave [0, 1]


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

    labels = "inferred"
    analytic = True
    made_for = {"victim": "fcn3", "batch": 1, "defense": "none"}
    presets = {"paper": {"restarts": 2}, "balanced": {"balanced": True, "restarts": 2}}

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
        images, y = [], []
        self.reports: list[list[LayerReport]] = []
        for observation in self.observations:
            readings = [self.reading(observation, likely) for likely in (True, False)[: self.restarts]]
            for run in range(self.restarts):
                x, label, reports = readings[run % len(readings)]
                images.append(x.to(self.victim.mean))
                y.append(label)
                self.reports.append(reports)
        self.warn_of_rank()
        yield Stage(
            name="x",
            variables={"x": torch.stack(images)[:, None]},
            fixed={"y": torch.tensor(y, device=self.victim.mean.device)[:, None]},
            labels=lambda v: v["y"],
            decode=lambda v: v["x"],
            lr=0.0,
        )

    def result(self) -> Reconstruction:
        layers = [self.reports[run] for run in self._best_runs(self._best_cost).tolist()]
        return replace(super().result(), layers=layers)

    def reading(self, observation: Observation, likely: bool) -> tuple[Tensor, int, list[LayerReport]]:
        """The normalised image (C, H, W), its label (0 or 1) and the layers under the likely label, or the other.

        An image of zeros stands for what could not be solved.
        """
        g = {name: tensor.detach().cpu().double() for name, tensor in observation.update.items()}
        nothing = torch.zeros(observation.image_shape)
        if not 0 < sum(float(tensor.square().sum()) for tensor in g.values()) < math.inf:
            return nothing, 0, []
        links = chain(observation.victim, observation.image_shape)
        g_d, W_d = g[links[-1].parameter], links[-1].module.weight
        m, *twin = margins(float((g_d * W_d).sum()))
        y = -1 if (g_d.sum() > 0) == likely else 1  # x_d = g_d / k_d, and k_d has the sign of -y
        layers = recursion(links, g, u=y * m, k=-y * float(expit(-m)), balanced=self.balanced)
        x = layers[-1].input.reshape(observation.image_shape)
        if twin and self.outside(x * twin[0] / m) < LEEWAY:
            layers = [replace(layer, input=layer.input * twin[0] / m) for layer in layers]
            x = x * twin[0] / m
        return (x, (y + 1) // 2, layers) if x.isfinite().all() else (nothing, 0, layers)

    def outside(self, x: Tensor) -> float:
        """Root mean square of how far the pixels of a normalised image (C, H, W) lie outside [0, 1]."""
        pixels = self.victim.denormalise(x.to(self.victim.mean))
        return float((pixels - pixels.clamp(0, 1)).square().mean().sqrt())

    def warn_of_rank(self) -> None:
        """Name the layers that do not determine their inputs."""
        for report in {r.layer: r for reports in self.reports for r in reports if r.rank < r.unknowns}.values():
            warnings.warn(
                f"the layer {report.layer} does not determine its input: rank {report.rank} for {report.unknowns} "
                "unknowns; the least-norm input is taken, and all layers before it inherit its error.",
                Notice,
                stacklevel=2,
            )


def recursion(links: list[Link], g: Gradient, u: float, k: float, balanced: bool) -> list[LayerReport]:
    """Algorithm 1: every layer's input, last layer first.

    Args:
        links: the victim's layers, first to last.
        g: d loss / d weight of each.
        u: the logit.
        k: d loss / d logit.
        balanced: see `RGAP`.
    """
    z, k_i = torch.tensor([u], dtype=torch.float64), torch.tensor([k], dtype=torch.float64)
    reports: list[LayerReport] = []
    for link in reversed(links):
        if type(link.module) in INVERSES:
            x = INVERSES[type(link.module)](link.module, z).reshape(link.input_shape)
        else:
            reports.append(rebuild_input(link, z, k_i, g[link.parameter], balanced))
            x = reports[-1].input
        k_i = back(link.module, x, k_i)
        z = x
    return reports
