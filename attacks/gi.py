"""GradInversion: Yin, Mallya, Vahdat, Alvarez, Kautz, Molchanov, *See through Gradients*, CVPR 2021."""

from typing import Literal, Unpack

import torch
from torch import Tensor

from attacks.base import Attack, Common
from attacks.engine.consensus import mean_consensus, registered_consensus
from attacks.engine.distances import cosine, layer_l2, mean_squared_l2
from attacks.engine.preset import Preset
from attacks.engine.regularizers import image_norm, total_variation
from attacks.engine.schedules import multistep, warmup_cosine
from attacks.engine.space import Between
from attacks.engine.stage import Search, Stage, Variables
from victims.ranges import above_zero, at_least, not_negative
from victims.victim import Gradient

COSTS = {"layer_l2": layer_l2, "mean_squared_l2": mean_squared_l2, "cosine": cosine}
SCHEDULES = {"cosine": warmup_cosine, "multistep": multistep}
CONSENSUS = {"mean": mean_consensus, "registered": registered_consensus}


class GI(Attack):
    """Pixels by Adam with noise on gradient distance, image fidelity, batch-norm statistics and group consistency.

    Weights and noise are those of later ports, which were not compared with the paper, and `assumed`. Restarts are the
    paper's seeds. The batch-norm term uses the statistics that the observation declares (--bn); without them it is
    zero. The paper restores labels itself, which requires all labels to be different; here they are given.

    Args:
        steps_x: steps on the pixels.
        eta: learning rate of Adam.
        schedule: cosine, 50 steps of warm-up and then a cosine decay, or multistep, as in IG.
        cost: layer_l2, the sum of every tensor's l2 distance; mean_squared_l2, the mean of their squares; or
            cosine.
        alpha_grad, alpha_tv, alpha_l2, alpha_bn, alpha_group: weights of the cost, of mean |dx| + mean |dy| on the
            normalized image, of the batch's l2 norm, of the batch-norm term, and of the distance to the consensus of
            the restarts.
        first_bn: factor on the first layer in the batch-norm term.
        per_area: divide l2 norm and group term by H W.
        noise: standard deviation of the noise added to the pixels in every step, before it is multiplied by the
            learning rate; a GPU draws other numbers than a CPU.
        group_from: step from which the group term acts.
        refresh: steps between two updates of the consensus.
        consensus: the `mean` of the restarts, or the mean after they are `registered` to it.
    """

    name = "gi"
    needs = frozenset({"labels"})
    uses = frozenset({"bn"})
    space = {
        "eta": Between(1e-2, 3e-1),
        "cost": ("layer_l2", "cosine"),
        "alpha_grad": (1e-3, 1.0),
        "alpha_tv": Between(1e-6, 1e-1),
        "noise": (0.0, 0.05, 0.2),
    }
    presets = {
        "paper": Preset(
            "the paper, sections 3 and 4",
            assumed="all weights and the noise, and when the group term begins and is refreshed, which come from later "
            "ports; registration by optical flow in place of RANSAC-flow",
            steps_x=20_000,
            group_from=500,
            consensus="registered",
            restarts=8,
        ),
        "gias": Preset(
            "GI-x+BN of GIAS, appendix G and code: no noise, the mean of the restarts, exact statistics (--bn exact)",
            assumed="steps and the weights of l2 norm, BN and group are the defaults of the code",
            steps_x=4_800,
            schedule="multistep",
            cost="cosine",
            alpha_grad=1.0,
            alpha_l2=1e-4,
            alpha_bn=1e-4,
            alpha_group=1e-4,
            per_area=True,
            noise=0.0,
            group_from=500,
            restarts=4,
        ),
        "gifd": Preset(
            "as GIFD's authors ran it: no noise, the mean of the restarts, no BN",
            assumed="the best of the restarts, where GIFD's code takes the last",
            steps_x=15_000,
            schedule="multistep",
            cost="mean_squared_l2",
            alpha_grad=1.0,
            alpha_bn=0.0,
            per_area=True,
            noise=0.0,
            group_from=500,
            restarts=4,
        ),
    }

    def __init__(
        self,
        *,
        steps_x: int = 600,
        eta: float = 0.1,
        schedule: Literal["cosine", "multistep"] = "cosine",
        cost: Literal["layer_l2", "mean_squared_l2", "cosine"] = "layer_l2",
        alpha_grad: float = 1e-3,
        alpha_tv: float = 1e-4,
        alpha_l2: float = 1e-6,
        alpha_bn: float = 0.1,
        alpha_group: float = 0.01,
        first_bn: float = 10.0,
        per_area: bool = False,
        noise: float = 0.2,
        group_from: int = 100,
        refresh: int = 100,
        consensus: Literal["mean", "registered"] = "mean",
        **common: Unpack[Common],
    ) -> None:
        super().__init__({"x": steps_x}, **common)
        above_zero(eta=eta, alpha_grad=alpha_grad)
        not_negative(alpha_tv=alpha_tv, alpha_l2=alpha_l2, alpha_bn=alpha_bn, alpha_group=alpha_group)
        not_negative(first_bn=first_bn, noise=noise, group_from=group_from)
        at_least(1, refresh=refresh)
        self.eta, self.schedule, self.measure, self.noise_scale = eta, SCHEDULES[schedule], COSTS[cost], noise
        self.alpha_grad, self.alpha_tv, self.alpha_l2 = alpha_grad, alpha_tv, alpha_l2
        self.alpha_bn, self.alpha_group, self.first_bn, self.per_area = alpha_bn, alpha_group, first_bn, per_area
        self.group_from, self.refresh, self.consensus = group_from, refresh, CONSENSUS[consensus]

    def distance(self, dummy: Gradient, received: Gradient) -> Tensor:
        return self.measure(dummy, received)

    def search(self) -> Search:
        x = self.noise()
        # The restarts' consensus, and 1 as soon as the group term acts.
        group = {"consensus": torch.zeros_like(x), "grouped": x.new_zeros(self.instances)}

        def add_noise_and_refresh(v: Variables, step: int) -> None:
            if self.noise_scale:
                rate = self.eta * self.schedule(step - 1, self.plan["x"])
                v["x"] += rate * self.noise_scale * self.normal_of_step(x.shape[1:], step)
            self.box(v["x"])
            if self.restarts > 1 and step >= self.group_from and (step - self.group_from) % self.refresh == 0:
                seeds = v["x"].unflatten(0, (-1, self.restarts))
                group["consensus"].copy_(self.per_instance([self.consensus(task) for task in seeds]))
                group["grouped"].fill_(1)

        yield Stage(
            name="x",
            variables={"x": x},
            fixed=group,
            lr=self.eta,
            schedule=self.schedule,
            penalty=self.penalty,
            project=add_noise_and_refresh,
        )

    def penalty(self, v: Variables, x: Tensor) -> Tensor:
        """All terms but the cost, divided by the weight of the cost: Adam ignores the scale of the objective."""
        area = x.shape[-1] * x.shape[-2] if self.per_area else 1
        group = v["grouped"] * image_norm(x - v["consensus"])
        fidelity = self.alpha_tv * total_variation(x) + self.alpha_l2 * image_norm(x) / area
        bn = self.alpha_bn * self.bn(v, x, self.first_bn)
        return (fidelity + bn + self.alpha_group * group / area) / self.alpha_grad
