"""R-GAP with a generator: Jeon et al., *Gradient Inversion with Generative Image Prior*, 2021, appendix C, eq. 11."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import takewhile
from typing import Unpack

import torch
from scipy.special import expit
from torch import Tensor

from attacks.base import Common
from attacks.closed_form.chain import Link, chain, through
from attacks.closed_form.recursion import LayerReport, balance, left_side, rebuild_input
from attacks.engine.optimizers import minimize
from attacks.engine.stage import Variables
from attacks.rgap import RGAP, Reading, in_double, recursion
from priors.base import decode_each


class RGAPg(RGAP):
    """R-GAP, but where a layer's system A_r x_r = b_r has many solutions, a generated image chooses.

    There x_r = f_{theta,r}(G_w(z)) with min |A_r f_{theta,r}(G_w(z)) - b_r|, first over z, then over w. f_{theta,r} is
    the victim up to the *input* of layer r (the paper says output, but its x_r is what A_r is applied to). Where every
    layer determines its input this is R-GAP, and the generator is not asked.

    The recursion then goes on below x_r as the paper recommends: in closed form where a layer determines its input,
    and where it does not, by eq. 11 again, from the z and w found so far. These steps are no victim gradients: the
    budget counts the one that judges each run; the seconds count all.

    Runs take the two labels in turn, as R-GAP's, each with latents of its own. Of the twins, the one is taken whose
    last features are nearer in size to those of the generated image that the run starts from: R-GAP's own rule
    looks at pixels, and those of a least-norm solution say little.

    Args:
        steps_z, steps_w: Adam steps of every such search, on the latents and on the parameters. The paper gives none.
        eta_z, eta_w: their learning rates, GIAS's.
        balanced: see `RGAP`; of eq. 11, and of the layers above it. Below, k too is only nearly right, and balancing
            would lose 1 to 3 dB (CNN6-d, CIFAR-10); as they are, the weight equations keep to G_w(z) there.
    """

    name = "rgap_g"
    needs = frozenset({"prior"})
    presets = {
        "paper": {"steps_w": 0, "restarts": 4},  # figure A1 searches the latents alone; starts as in the main text
        "balanced": {"balanced": True, "restarts": 2},
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
        self.steps_z, self.steps_w, self.eta_z, self.eta_w = steps_z, steps_w, eta_z, eta_w

    def readings(self, task: int) -> list[Reading]:
        return [self.generated(run, plain) for run, plain in enumerate(super().readings(task), task * self.restarts)]

    def generated(self, run: int, plain: Reading) -> Reading:
        """R-GAP's reading for a run, and where a layer is deficient, its recursion once more with eq. 11 there."""
        if all(map(determined, plain.layers)):
            return plain
        observation = self.observations[run // self.restarts]
        links, g = chain(observation.victim, observation.image_shape), in_double(observation.gradient())
        state = {name: s[run : run + 1] for name, s in self.latents().items()}
        w = {name: p[None, None] for name, p in self.prior.named_parameters()}
        v: dict[str, Tensor] = {**state, **w}

        def image(v: Variables) -> Tensor:
            decoded = decode_each(self.prior, {name: v[name] for name in w}, {name: v[name] for name in state})
            return self.images(decoded)[0, 0].cpu().double()

        size, g_d = through(links[:-1], image(v)).norm(), g[links[-1].parameter].norm()
        m = min(plain.margins, key=lambda m: float((g_d / expit(-m) / size).log().abs()))  # x_d = g_d / k_d
        scale = expit(-plain.margins[0]) / expit(-m)  # every input is proportional to x_d
        found = {layer.layer: layer for layer in plain.layers}
        above = {layer.layer for layer in takewhile(determined, plain.layers)}

        def solve(link: Link, z: Tensor, k: Tensor, g: Tensor) -> LayerReport:
            if link.name in above:  # as R-GAP has it
                return replace(found[link.name], input=found[link.name].input * scale)
            if determined(found[link.name]):  # below a generated input
                return rebuild_input(link, z, k, g)
            if self.balanced:
                k, g = balance(link.module, k, g)
            before, b = links[: links.index(link)], torch.cat([g.flatten(), z.flatten()])

            def x_r(v: Variables) -> Tensor:
                return through(before, image(v)).reshape(link.input_shape)

            def cost(v: Variables) -> Tensor:
                return (left_side(link.module, x_r(v), k) - b).norm()

            v.update(descend(cost, v, self.prior.latents, self.steps_z, self.eta_z))
            v.update(descend(cost, v, w, self.steps_w, self.eta_w))
            return replace(found[link.name], input=x_r(v).detach(), residual=float(cost(v) / b.norm()))

        layers = recursion(links, g, 2 * plain.label - 1, m, solve)
        x = layers[-1].input.reshape(observation.image_shape)
        return Reading(x if x.isfinite().all() else torch.zeros_like(x), plain.label, [m], layers)


def determined(layer: LayerReport) -> bool:
    return layer.rank == layer.unknowns


def descend(
    cost: Callable[[Variables], Tensor], v: Variables, names: Iterable[str], steps: int, eta: float
) -> dict[str, Tensor]:
    """Adam on the named ones of v with GIAS's schedule: these, where the cost was least."""
    moving = {name: v[name].detach().clone().requires_grad_() for name in names}
    least, best = torch.inf, {name: v[name] for name in moving}
    for value in minimize(lambda: cost({**v, **moving}), list(moving.values()), eta, steps):
        if value < least:
            least, best = value, {name: variable.detach().clone() for name, variable in moving.items()}
    return best
