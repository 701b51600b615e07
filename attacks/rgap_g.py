"""R-GAP with a generator: Jeon et al., *Gradient Inversion with Generative Image Prior*, 2021, appendix C, eq. 11."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import takewhile
from typing import Unpack

import torch
from scipy.special import expit
from torch import Tensor

from attacks.base import Common
from attacks.closed_form.chain import Layer, chain, head, through
from attacks.closed_form.first_linear import in_double
from attacks.closed_form.recursion import balance, left_side, reconstruct_input, recursion
from attacks.engine.optimizers import minimize
from attacks.engine.preset import Preset
from attacks.engine.space import Between
from attacks.engine.stage import LayerReport, Variables
from attacks.rgap import RGAP, Candidate
from priors.base import decode_each
from victims.ranges import above_zero, not_negative


class RGAPg(RGAP):
    """R-GAP, but a generated image chooses among the solutions of a layer that does not determine its input.

    There x_r = f_{theta,r}(G_w(z)) with min |A_r f_{theta,r}(G_w(z)) - b_r|, first over z, then over w. f_{theta,r} is
    the victim up to the *input* of layer r (the paper says output, but A_r is applied to its x_r). If every layer
    determines its input this is R-GAP, and the generator is not used.

    Below x_r the recursion continues as the paper recommends: in closed form where a layer determines its input, and
    elsewhere by eq. 11 again, from the z and w found so far. These steps are no victim gradients: the budget counts the
    one that judges each instance; the seconds count everything.

    Restarts take the two labels in turn, as in R-GAP, each with latents of its own. Of the twins, the one is taken
    whose last features are closer in size to those of the generated image that the restart begins with. R-GAP's own
    rule looks at pixels, and the pixels of a least-norm solution say little.

    Args:
        steps_z, steps_w: Adam steps of every such search, on the latents and on the parameters. The paper gives none.
        eta_z, eta_w: their learning rates, GIAS's.
        balanced: see `RGAP`; for eq. 11 and for the layers above it. Below it k is inexact too, and balancing would
            lose 1 to 3 dB (CNN6-d, CIFAR-10); unbalanced, the weight equations keep the result close to G_w(z) there.
    """

    name = "rgap_g"
    needs = frozenset({"prior"})
    space = {"eta_z": Between(3e-3, 3e-1), "eta_w": Between(1e-4, 1e-2)}
    presets = {
        "paper": Preset(
            "GIAS, appendix C and figure A1, which searches the latents alone",
            assumed="steps; learning rate and starts are those of the main text",
            steps_z=300,
            steps_w=0,
            restarts=4,
        ),
        "balanced": Preset("this suite: equations of equal norm", balanced=True, restarts=2),
    }
    instead = "the generator's is taken (eq. 11)"

    def __init__(
        self,
        *,
        steps_z: int = 300,
        steps_w: int = 300,
        eta_z: float = 3e-2,
        eta_w: float = 1e-3,
        balanced: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(balanced=balanced, **common)
        not_negative(steps_z=steps_z, steps_w=steps_w)
        above_zero(eta_z=eta_z, eta_w=eta_w)
        self.steps_z, self.steps_w, self.eta_z, self.eta_w = steps_z, steps_w, eta_z, eta_w

    def candidates(self, task: int) -> list[Candidate]:
        instances = range(task * self.restarts, (task + 1) * self.restarts)
        return [self.generated(*pair) for pair in zip(instances, super().candidates(task), strict=True)]

    def generated(self, instance: int, plain: Candidate) -> Candidate:
        """R-GAP's candidate for an instance; if a layer is deficient, the recursion once more with eq. 11 there."""
        if all(map(determined, plain.layers)):
            return plain
        observation = self.observations[instance // self.restarts]
        layers = chain(observation.victim, observation.image_shape)
        g = {name: in_double(t) for name, t in observation.gradient().items()}
        state = {name: s[instance : instance + 1] for name, s in self.latents().items()}
        w = {name: p[None, None] for name, p in self.prior.named_parameters()}
        v: dict[str, Tensor] = {**state, **w}

        def image(v: Variables) -> Tensor:
            decoded = decode_each(self.prior, {name: v[name] for name in w}, {name: v[name] for name in state})
            return self.victim.enter(self.images(decoded))[0, 0].cpu().double()

        size, x_d = through(layers[: layers.index(head(layers))], image(v)).norm(), plain.layers[0].input.norm()
        scales = {m: expit(-plain.margins[0]) / expit(-m) for m in plain.margins}  # of x_d, and so of every input
        m, scale = min(scales.items(), key=lambda item: float((item[1] * x_d / size).log().abs()))
        found = {report.layer: report for report in plain.layers}
        above = {report.layer for report in takewhile(determined, plain.layers)}

        def solve(layer: Layer, z: Tensor, k: Tensor, g: Tensor) -> LayerReport:
            if layer.name in above:  # as in R-GAP
                return replace(found[layer.name], input=found[layer.name].input * scale)
            if determined(found[layer.name]):  # below a generated input
                return reconstruct_input(layer, z, k, g)
            if self.balanced:
                k, g = balance(layer.module, k, g)
            before, b = layers[: layers.index(layer)], torch.cat([g.flatten(), z.flatten()])

            def x_r(v: Variables) -> Tensor:
                return through(before, image(v)).reshape(layer.input_shape)

            def cost(v: Variables) -> Tensor:
                return (left_side(layer.module, x_r(v), k) - b).norm()

            v.update(descend(cost, v, self.prior.latents, self.steps_z, self.eta_z))
            v.update(descend(cost, v, w, self.steps_w, self.eta_w))
            return replace(found[layer.name], input=x_r(v).detach(), residual=float(cost(v) / b.norm()))

        reports = recursion(layers, g, 2 * plain.label - 1, m, solve)
        x = reports[-1].input.reshape(observation.image_shape)
        return Candidate(x if x.isfinite().all() else torch.zeros_like(x), plain.label, [m], reports)


def determined(report: LayerReport) -> bool:
    return report.rank == report.unknowns


def descend(
    cost: Callable[[Variables], Tensor], v: Variables, names: Iterable[str], steps: int, eta: float
) -> dict[str, Tensor]:
    """Adam on the named tensors of v with GIAS's schedule: their values of least cost."""
    moving = {name: v[name].detach().clone().requires_grad_() for name in names}
    least, best = torch.inf, {name: v[name] for name in moving}
    for value in minimize(lambda: cost({**v, **moving}), list(moving.values()), eta, steps):
        if value < least:
            least, best = value, {name: variable.detach().clone() for name, variable in moving.items()}
    return best
