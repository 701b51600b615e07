"""GIAS: Jeon, Kim, Lee, Oh, Ok, *Gradient Inversion with Generative Image Prior*, NeurIPS 2021, algorithm 1."""

from collections.abc import Callable
from typing import Any, Literal, Unpack

from torch import Tensor

from attacks.base import Attack, Common, Start
from attacks.engine.distances import chosen_tensors, cosine, tensor_choice
from attacks.engine.preset import Preset
from attacks.engine.regularizers import squared_variation, total_variation
from attacks.engine.schedules import multistep
from attacks.engine.space import Between
from attacks.engine.stage import Search, Stage, Variables, split
from priors.base import State, decode, decode_each
from victims.ranges import above_zero, not_negative
from victims.victim import Gradient

VARIATION = {"mean_abs": total_variation, "sum_squares": squared_variation}

OF_CODE: dict[str, Any] = {"alpha_bn": 1e-4, "first_bn": 10.0}  # options.py and every loss of revision 5154dc1
PAPER: dict[str, Any] = {"steps_z": 1_500, "steps_w": 15_000, "tv": 1e-4, "restarts": 4, **OF_CODE}
LITERAL: dict[str, Any] = {"variation": "sum_squares", "tv": 2e-4}  # eq. 4 times 1e-4: every pair of neighbors twice
CODE: dict[str, Any] = {"tv": 1e-6, "noise": "redrawn", "restarts": 3}  # in all scripts of the authors' code
GIFD: dict[str, Any] = {"steps_z": 1_000, "steps_w": 8_000, "tv": 1e-4, "keep": "best", "restarts": 4}
NORMALIZED = "BigGAN's weights are searched as they are after spectral normalization, in the source before it"
TAEF2 = "eta_z, the better of 0.03 and 0.1 for gi_z on two tune images of ImageNet at 64 px"

Penalty = Callable[[Variables, Tensor], Tensor]
Noise = Literal["fixed", "redrawn"]
"""The noise of a generator that has its own, such as StyleGAN2: drawn once, or again for every step, by a GPU
other numbers than by a CPU."""


def redraw(attack: Attack, state: State, stage: str) -> Callable[[Variables, int], None]:
    """A stage's `project`: new noise of the generator for the next step, in place in `state`."""

    def project(v: Variables, step: int) -> None:
        for name in attack.prior.noises:
            state[name].copy_(attack.normal_of_step(state[name].shape[1:], stage, step, name))

    return project


def latent_search(
    attack: Attack,
    state: State,
    eta_z: float,
    penalty: Penalty,
    *,
    redrawn: bool,
    keep: Literal["each", "best"] = "each",
) -> Stage:
    """min over z_1..z_B of c(G_w(z_1), ..., G_w(z_B)).

    Args:
        state: the input of the prior, (R, B, ...), which the search starts from.
    """
    prior = attack.prior
    z, fixed = split(state, prior.latents)
    return Stage(
        name="z",
        variables=z,
        fixed=fixed,
        decode=lambda v: attack.images(decode(prior, {name: v[name] for name in state})),
        lr=eta_z,
        schedule=multistep,
        penalty=penalty,
        project=redraw(attack, fixed, "z") if redrawn else None,
        keep=keep,
    )


def parameter_search(attack: Attack, state: State, eta_w: float, penalty: Penalty, *, redrawn: bool) -> Stage:
    """min over w_1..w_B of c(G_{w_1}(z_1), ..., G_{w_B}(z_B)), every w_j from the prior's own parameters.

    Args:
        state: the input of the prior, (R, B, ...); it stays fixed.
    """
    instances = next(iter(state.values())).shape[:2]
    w = {name: p.expand(*instances, *p.shape) for name, p in attack.prior.named_parameters()}
    return Stage(
        name="w",
        variables=w,
        fixed=state,
        decode=lambda v: attack.images(decode_each(attack.prior, {n: v[n] for n in w}, {n: v[n] for n in state})),
        lr=eta_w,
        schedule=multistep,
        penalty=penalty,
        project=redraw(attack, state, "w") if redrawn else None,
    )


class GIAS(Attack):
    """Latents first, then a copy of the generator's parameters for every image (GI-z/w).

    The paper's variation is a sum of squares (eq. 4), which grows with the image and at 64 px is far above the cost;
    its code has mean absolute differences alone. `paper` therefore has these, and `paper-literal` the sum. Which is
    better depends on images and prior. On a LeNet at 64 px, with a generator of faces and few steps, mean absolute
    differences gave 24.9 dB and the sum 18.4 on a face (one tune task, B1), but 20.0 and 27.1 on photographs (two, B2),
    the sum with every pair of neighbors once.

    Args:
        steps_z, steps_w: steps of the two stages.
        eta_z, eta_w: their learning rates.
        tv: weight of the variation.
        variation: mean_abs or sum_squares of neighbor differences on the normalized image.
        alpha_bn: weight of the distance to the batch-norm statistics that the observation declares (--bn).
        first_bn: factor on the first layer in it.
        tensors: which tensors are in the cost, as ig's.
        noise: the generator's own noise, fixed or redrawn in every step.
        keep: after the latents `each` restart continues, as in the paper, or only the `best`, as in the code.
        start: latents as `drawn` by the prior, or `gaussian`, as in gifd.
    """

    name = "gias"
    needs = frozenset({"labels", "prior"})
    uses = frozenset({"bn"})
    space = {
        "steps_z": (100, 300, 900),
        "eta_z": Between(3e-3, 3e-1),
        "eta_w": Between(1e-4, 1e-2),
        "tv": Between(1e-6, 1e-1),
        "keep": ("each", "best"),
    }
    presets = {
        "paper": Preset(
            "the paper, section 5, figure 1 and appendix G",
            assumed="variation and batch-norm term are those of the code; steps_w has the code's ratio to steps_z; "
            "noise stays fixed; every layer has a latent of its own (W+, as in the code; the paper writes W)",
            **PAPER,
        ),
        "paper-literal": Preset(
            "as `paper`, but the variation as eq. 4 writes it, where a pair of neighbors comes twice: so tv is 2e-4",
            assumed="otherwise as `paper`",
            **{**PAPER, **LITERAL},
        ),
        "code": Preset(
            "the authors' code at 32 px",
            assumed="one parameter search in place of three that differ in their noise alone; with --bn, which its "
            "scripts leave out, the batch-norm term of its options",
            steps_z=500,
            steps_w=5_000,
            keep="best",
            **CODE,
            **OF_CODE,
        ),
        "code-128": Preset(
            "the authors' code at 128 px",
            assumed="as `code`",
            steps_z=1_000,
            steps_w=8_000,
            tensors="top50",
            keep="best",
            **CODE,
            **OF_CODE,
        ),
        "code-meta": Preset(
            "the authors' code, scripts/meta_eval.sh, with --defense sparsification:0.95, as its cost leaves out 95 of "
            "100 entries: with a generator learned by GIML, figures 4 and 5",
            assumed="as `code`",
            steps_z=1_000,
            steps_w=5_000,
            eta_z=0.1,
            keep="best",
            **{**CODE, "restarts": 4},
            **OF_CODE,
        ),
        "igims-imagenet": Preset(
            "the baseline of IGIMS on ImageNet, appendix A",
            assumed="steps and starts are those of `code`; no term of |w - w_0|, which the text has for IGIMS; "
            f"{NORMALIZED}",
            steps_z=500,
            steps_w=5_000,
            eta_w=1e-5,
            tv=1e-4,
            keep="best",
            restarts=3,
        ),
        "gifd": Preset(
            "as GIFD's authors ran it, configs_biggan.yml",
            assumed=f"one parameter search in place of four equal ones; {NORMALIZED}",
            eta_w=1e-5,
            **GIFD,
        ),
        "gifd-stylegan2": Preset(
            "as GIFD's authors ran it, configs_stylegan2.yml",
            assumed="one parameter search in place of four equal ones; noise of its own for each start",
            eta_w=1e-3,
            start="gaussian",
            **GIFD,
        ),
        "taef2": Preset("this suite, for that prior", assumed=TAEF2, eta_z=0.1, restarts=2),
    }

    def __init__(
        self,
        *,
        steps_z: int = 300,
        steps_w: int = 300,
        eta_z: float = 3e-2,
        eta_w: float = 1e-3,
        tv: float = 1e-4,
        variation: Literal["mean_abs", "sum_squares"] = "mean_abs",
        alpha_bn: float = 0.1,
        first_bn: float = 1.0,
        tensors: str = "all",
        noise: Noise = "fixed",
        keep: Literal["each", "best"] = "each",
        start: Start = "drawn",
        **common: Unpack[Common],
    ) -> None:
        """
        Raises:
            InputError: an option that means nothing.
        """
        super().__init__({"z": steps_z, "w": steps_w}, **common)
        above_zero(eta_z=eta_z, eta_w=eta_w)
        not_negative(tv=tv, alpha_bn=alpha_bn, first_bn=first_bn)
        tensor_choice(tensors)  # refuses a wrong text here, not at the first step
        self.eta_z, self.eta_w, self.tv, self.alpha_bn, self.first_bn = eta_z, eta_w, tv, alpha_bn, first_bn
        self.variation, self.tensors, self.redrawn = VARIATION[variation], tensors, noise == "redrawn"
        self.keep, self.start = keep, start

    def distance(self, dummy: Gradient, received: Gradient) -> Tensor:
        return cosine(dummy, received, chosen_tensors(dummy, received, self.tensors))

    def search(self) -> Search:
        state = self.latents(self.start)
        state = yield latent_search(self, state, self.eta_z, self.penalty, redrawn=self.redrawn, keep=self.keep)
        yield parameter_search(self, state, self.eta_w, self.penalty, redrawn=self.redrawn)

    def penalty(self, v: Variables, x: Tensor) -> Tensor:
        return self.tv * self.variation(x) + self.alpha_bn * self.bn(v, x, self.first_bn)
