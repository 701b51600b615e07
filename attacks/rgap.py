"""R-GAP: Zhu & Blaschko, *R-GAP: Recursive Gradient Attack on Privacy*, ICLR 2021, algorithm 1."""

import math
import warnings
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from attacks.base import Attack, Common
from attacks.closed_form.chain import chain, head
from attacks.closed_form.first_linear import in_double
from attacks.closed_form.recursion import margins, reconstruct_input, recursion
from attacks.engine.preset import Preset
from attacks.engine.stage import LayerReport, Reconstruction, Search, Stage
from victims.errors import InputError, Notice
from victims.observation import Observation

LEEWAY = 0.05  # root mean square by which the pixels of an inexact image may leave [0, 1]


@dataclass(frozen=True)
class Candidate:
    """The image that fits an update under one label.

    Attributes:
        image: (C, H, W), as it enters the model; zeros if it could not be solved.
        label: 0 or 1.
        margins: the one that was taken, then its twin if there is one.
        layers: every layer with a weight, last layer first; none if the update is zero or not finite.
    """

    image: Tensor
    label: int
    margins: list[float]
    layers: list[LayerReport]


class RGAP(Attack):
    """One image in closed form: layer by layer, last to first, the input by least squares.

    The last layer leaves two questions open:

    - The label y = +-1: (y, x) and (-y, -x) have the same gradient there. LeakyReLU's outputs are mostly positive, so
      the first restart takes the label that makes their sum positive, and the second restart the other label; further
      restarts repeat these two. Below the last layer the wrong label leads to a contradiction, so the matching cost
      decides.
    - The margin m = y u, where the label agrees with the prediction: it has two roots, and their images are multiples
      of each other with exactly the same gradient in every layer (the paper's twin data). No cost distinguishes them,
      but pixels lie in [0, 1]: the larger image is taken unless it leaves this range. The paper's code is given the
      label and makes it the opposite of the prediction, so it meets neither question.

    Args:
        balanced: scale the gradient equations of each convolution to the size of its weight equations; the paper
            stacks them as they are. k depends only on the signs of the reconstruction and is otherwise exact, while the
            weight equations carry all error of the layer after. But k shrinks from layer to layer, so without balancing
            the weight equations outweigh it and errors explode with depth (GIAS, figure A2); with it they hardly grow.

    Attributes:
        reports: for each instance, tasks first, what each layer's system determined, last layer first; empty if the
            update is zero or not finite.
    """

    name = "rgap"
    labels = "inferred"
    analytic = True
    made_for = {"victim": "fcn3", "batch": 1, "defense": "none"}
    presets = {
        "paper": Preset(
            "the paper, algorithm 1",
            assumed="label and margin where they are ambiguous: both labels in turn, the margin by the range of pixels",
            restarts=2,
        ),
        "balanced": Preset("this suite: equations of equal norm", balanced=True, restarts=2),
    }
    instead: ClassVar[str] = "the least-norm input is taken"  # if a layer does not determine its input

    def __init__(self, *, balanced: bool = False, **common: Unpack[Common]) -> None:
        super().__init__({"x": 1}, **common)
        self.balanced = balanced

    def check(self, observation: Observation) -> None:
        """Refuse a victim that is no chain of invertible layers, and an update of unknown length.

        Raises:
            InputError: names the first layer that cannot be inverted, and why.
        """
        super().check(observation)
        local = observation.knowledge.local
        if local and local.lr is None:  # of another length it would be the gradient of a scaled image
            raise InputError(f"{self.name} solves for the length of the gradient too; run with --know-lr true.")
        chain(observation.victim, observation.image_shape)

    def search(self) -> Search:
        candidates = [candidate for task in range(len(self.observations)) for candidate in self.candidates(task)]
        self.reports = [candidate.layers for candidate in candidates]
        self.warn_of_rank()
        entering = torch.stack([candidate.image for candidate in candidates])[:, None].to(self.victim.mean)
        yield Stage(
            name="x",
            variables={"x": self.victim.leave(entering)},
            fixed={"y": torch.tensor([[candidate.label] for candidate in candidates], device=self.victim.mean.device)},
            labels=itemgetter("y"),
            lr=0.0,
        )

    def result(self) -> Reconstruction:
        layers = [self.reports[instance] for instance in self.session.winners().tolist()]
        return replace(super().result(), layers=layers)

    def candidates(self, task: int) -> list[Candidate]:
        """One for each restart of a task."""
        labels = [self.candidate(self.observations[task], likely) for likely in (True, False)[: self.restarts]]
        return [labels[restart % len(labels)] for restart in range(self.restarts)]

    def candidate(self, observation: Observation, likely: bool) -> Candidate:
        """Under the likely label, or the other."""
        nothing = torch.zeros(observation.image_shape, dtype=torch.float64)
        g = {name: in_double(t) for name, t in observation.gradient().items()}
        if not 0 < sum(float(tensor.square().sum()) for tensor in g.values()) < math.inf:
            return Candidate(nothing, 0, [], [])
        layers = chain(observation.victim, observation.image_shape)
        g_d, W_d = g[head(layers).parameter], head(layers).module.weight
        m, *twin = margins(float((g_d * W_d).sum()))
        y = -1 if (g_d.sum() > 0) == likely else 1  # x_d = g_d / k_d, and k_d has the sign of -y
        reports = recursion(layers, g, y, m, partial(reconstruct_input, balanced=self.balanced))
        x = reports[-1].input.reshape(observation.image_shape)
        if twin and self.outside(x * twin[0] / m) < LEEWAY:
            reports = [replace(report, input=report.input * twin[0] / m) for report in reports]
            x, m, twin = x * twin[0] / m, twin[0], [m]
        return Candidate(x if x.isfinite().all() else nothing, (y + 1) // 2, [m, *twin], reports)

    def outside(self, x: Tensor) -> float:
        """Root mean square of how far the pixels of what enters the model, (C, H, W), lie outside [0, 1]."""
        pixels = self.victim.denormalize(self.victim.leave(x.to(self.victim.mean)))
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
