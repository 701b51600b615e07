"""Cocktail Party Attack on features: Kariyappa, Guo, Maeng, Xiong, Suh, Qureshi, Lee, ICML 2023."""

from collections.abc import Mapping
from functools import partial
from operator import itemgetter
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from attacks.base import Common
from attacks.closed_form.first_linear import FirstLinear, first_linear_of_features
from attacks.cocktail_party import CocktailParty
from attacks.engine.preset import Preset
from attacks.engine.regularizers import total_variation
from attacks.engine.schedules import warmup_cosine
from attacks.engine.space import Between
from attacks.engine.stage import Search, Stage, Variables
from victims.observation import Observation
from victims.ranges import above_zero, at_least, not_negative

FEATURES: dict[str, Any] = {  # of VGG-16 on ImageNet, in the code
    "steps_u": 25_000, "eta": 1e-3, "ne": 0.0, "decor": 5.3, "l1": 5.0, "nv": 0.13, "T": 7.7, "tv": 0.1,
    "restarts": 1,
}  # fmt: skip


class CocktailPartyFI(CocktailParty):
    """The features of a batch as independent components of a linear layer's gradient, then images with these features.

    The layer is the first linear one that sees one vector z of every image. Its inputs are found as `cocktail_party`
    finds images, but what is assumed of them, in place of little variation, is

    - a small mean |z| at variance 1 (`l1`), for features are sparse;
    - a small norm of the negative or of the positive part (`nv`), for after a ReLU there is none or only that.

    Then images are found whose features f(x) have the directions of z, 1 - cos(z, f(x)), with little variation: first
    by these two alone, without a victim gradient, then together with the matching cost.

    Not counted as victim gradients are the features of the batch and their derivative by its images, a forward and a
    backward pass in every step on images, and what finds labels, as in `cocktail_party`.

    Features of an untrained network are much alike, and the code's weights, which keep the rows of U apart, mix them:
    for four images of CIFAR-10's `tune` split, the correlations with the true features were .55 to .8, and with the
    default weights .99 to 1.

    Args:
        steps_u: steps on U.
        steps_z: steps on the images by their features alone; 0 leaves this stage out.
        steps_x: steps on the images with the matching cost too; with 1, those of `steps_z` are only judged.
        eta: learning rate of Adam on U.
        eta_x: that on images; half a cosine down to 0 in either stage.
        ne, decor, l1, nv: weights of the terms of U.
        T: of the decorrelation.
        fi, tv: weights of the features' distance and of the images' variation; that of the matching cost is 1.
    """

    name = "cocktail_party_fi"
    made_for: ClassVar[Mapping[str, Any]] = {}
    space = {
        "eta_x": Between(1e-2, 3e-1),
        "decor": Between(1e-3, 1e1),
        "fi": Between(1e-1, 1e1),
        "tv": Between(1e-3, 1e1),
    }
    presets = {
        "code": Preset(
            "the authors' code, VGG-16 on ImageNet, batches of 256, features alone",
            assumed="rows of U start orthonormal and drawn (the code: the identity); the sign of features by the bias "
            "(the code: absolute values); images of all features (the code: of 16); labels, for the judged step",
            steps_z=25_000,
            steps_x=1,
            **FEATURES,
        ),
        "code-gm": Preset(
            "the authors' code with its default feature inversion (--fi_method=gm), features and gradients together",
            assumed="the rest as `code`; labels are inferred and fixed (the code: searched together with the images)",
            steps_z=0,
            steps_x=25_000,
            **FEATURES,
        ),
    }

    def __init__(
        self,
        *,
        steps_u: int = 1_000,
        steps_z: int = 600,
        steps_x: int = 1,
        eta: float = 3e-2,
        eta_x: float = 1e-1,
        ne: float = 1.0,
        decor: float = 5e-3,
        T: float = 7.7,
        l1: float = 1.0,
        nv: float = 2.0,
        fi: float = 1.0,
        tv: float = 1e-1,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(steps_u=steps_u, eta=eta, ne=ne, decor=decor, T=T, tv=tv, **common)
        at_least(1, steps_x=steps_x)
        above_zero(eta_x=eta_x)
        not_negative(steps_z=steps_z, l1=l1, nv=nv, fi=fi)
        steps, plan = common.get("steps"), {"u": steps_u, "z": steps_z, "x": steps_x}
        plan = {name: count for name, count in plan.items() if count}
        self.plan = self.planned(plan, steps)
        self.eta_x, self.l1, self.nv, self.fi = eta_x, l1, nv, fi

    def layer(self, observation: Observation) -> FirstLinear:
        return first_linear_of_features(observation.victim, observation.image_shape, self.name)

    def regularizer(self, s: Tensor) -> Tensor:
        one_sided = torch.minimum(s.relu().norm(dim=2), (-s).relu().norm(dim=2)).mean(1)
        return self.l1 * s.abs().mean((1, 2)) + self.nv * one_sided

    def search(self) -> Search:
        layer = self.layer(self.observations[0])
        z, dz = yield from self.separate(layer)
        found: Variables = {"x": self.noise()}
        stage = partial(
            Stage,
            lr=self.eta_x,
            schedule=partial(warmup_cosine, warmup=0),
            project=lambda v, step: self.box(v["x"]),
        )
        z = z.to(self.victim.mean)
        if "z" in self.plan:
            found = yield stage(
                name="z",
                variables={"x": found["x"]},
                fixed={"z": z},
                objective=lambda v: self.features_apart(layer.name, v, v["x"]),
            )
        yield stage(
            name="x",
            variables={"x": found["x"]},
            fixed={"z": z, "y": self.labels_by_dz(layer, found["x"], dz)},
            labels=itemgetter("y"),
            penalty=partial(self.features_apart, layer.name),
        )

    def features_apart(self, layer: str, v: Variables, x: Tensor) -> Tensor:
        """The weighted distance of directions of features, and the variation: (R, B, C, H, W) -> (R,)."""
        victim = self.victim
        layers = {layer: victim.model.get_submodule(layer)}
        f = torch.stack([victim.entering(layers, victim.parameters, images)[layer] for images in x])
        return self.fi * (1 - cosine_similarity(v["z"], f, -1)).mean(1) + self.tv * total_variation(x)
