"""Cocktail Party Attack: Kariyappa, Guo, Maeng, Xiong, Suh, Qureshi, Lee, ICML 2023."""

from collections.abc import Generator, Mapping
from operator import itemgetter
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from attacks.base import Attack, Common
from attacks.closed_form.first_linear import FirstLinear, first_linear, labels_of
from attacks.closed_form.independent_components import decorrelation, negentropy, unit_rows, warn_of_rank, whitening
from attacks.engine.preset import Preset
from attacks.engine.regularizers import total_variation
from attacks.engine.space import Between
from attacks.engine.stage import Search, Stage, Variables
from victims.errors import InputError
from victims.observation import Observation
from victims.ranges import above_zero, not_negative

LEEWAY = 0.05  # by which the pixels of an image may span more than [0, 1]


class CocktailParty(Attack):
    """The images of a batch as independent components of the gradient of the linear layer that sees them.

    dL/dW = V X, so X = U K dL/dW up to the scale of each image, where K whitens and U has unit rows. U minimizes

    - minus the mean negentropy of the images, for a mixture is closer to normal numbers than its parts are;
    - the decorrelation of its rows, exp(T |<u_i, u_j>|) - 1, so that no image comes twice;
    - the total variation of the images at variance 1.

    This takes no victim gradient; one judges the images of each start, and is counted. Not counted is what finds the
    labels: for each start and class a forward pass of the batch, and a backward pass to the layer.

    D = U K makes D V = diag(1 / s), and dL/dc is V 1, so scale and sign are known from D dL/dc = 1 / s. The code takes
    the sign from the truth and scales every image to [0, 1]; here only an image that would span more is scaled so.
    Labels are the classes whose gradients are nearest in direction to the columns of V. Where a client clips tensor by
    tensor, all scales are off by one factor.

    The code computes the negentropy, as (E[log cosh s])^2, and then sets it to zero. Here it is the squared distance of
    E[log cosh s] from that of normal numbers, and it counts unless `ne` is 0.

    Args:
        steps_u: steps on U.
        eta: learning rate of Adam.
        ne, decor, tv: weights of the three terms.
        T: of the decorrelation.
    """

    name = "cocktail_party"
    labels = "inferred"
    made_for: ClassVar[Mapping[str, Any]] = {"victim": "fcn"}
    space = {"eta": Between(3e-3, 3e-1), "decor": Between(1e-2, 1e1), "tv": Between(1e-1, 1e1)}
    presets = {
        "code": Preset(
            "the authors' code, fully connected net on Tiny-ImageNet, batches of 128",
            assumed="rows of U start orthonormal and drawn (the code: the identity); sign and scale; labels",
            steps_u=25_000,
            eta=1e-3,
            ne=0.0,
            restarts=1,
        ),
    }

    def __init__(
        self,
        *,
        steps_u: int = 2_000,
        eta: float = 3e-2,
        ne: float = 1.0,
        decor: float = 1.47,
        T: float = 12.4,
        tv: float = 3.1,
        **common: Unpack[Common],
    ) -> None:
        super().__init__({"u": steps_u, "x": 1}, **common)
        above_zero(eta=eta, T=T)
        not_negative(ne=ne, decor=decor, tv=tv)
        self.eta, self.ne, self.decor, self.T, self.tv = eta, ne, decor, T, tv

    def layer(self, observation: Observation) -> FirstLinear:
        """The layer whose inputs are separated."""
        return first_linear(observation.victim, observation.image_shape, self.name)

    def check(self, observation: Observation) -> None:
        """Refuse more images than the layer has outputs or inputs: `fcn:512` takes 512, a classifier its classes.

        Also a victim without such a layer.
        """
        super().check(observation)
        layer = self.layer(observation)
        if observation.batch_size > (most := min(layer.W.shape)):
            raise InputError(
                f"{self.name} separates no more than {most} images by the layer {layer.name}, of {len(layer.W)} "
                f"outputs and {layer.W.shape[1]} inputs; run with --batch {most}, or choose a wider --victim."
            )

    def search(self) -> Search:
        layer = self.layer(self.observations[0])
        x, dz = yield from self.separate(layer)
        images = torch.stack([layer.images(each, o) for each, o in zip(x, self.of_instances, strict=True)])
        images = self.victim.normalize(spanning_one(self.victim.denormalize(images)))
        yield Stage(
            name="x",
            variables={"x": images},
            fixed={"y": self.labels_by_dz(layer, images, dz)},
            labels=itemgetter("y"),
            lr=0.0,
        )

    def separate(self, layer: FirstLinear) -> Generator[Stage, dict[str, Tensor], tuple[Tensor, Tensor]]:
        """The stage on U; returns the inputs of the layer (R, B, n) and dL/dz of each (R, B, m), in float64."""
        B = self.batch_size
        gradients = [layer.gradients(o) for o in self.observations]
        K = [whitening(G, B) for G, _ in gradients]
        warn_of_rank(K, layer.name)
        M, b, P = map(
            self.per_instance,
            zip(*((k @ G, k @ g, torch.linalg.pinv(k)) for k, (G, g) in zip(K, gradients, strict=True)), strict=True),
        )
        start = self.draw(lambda generator: torch.linalg.qr(torch.randn(B, B, generator=generator)).Q, "U")
        fixed = {"M": M.to(self.victim.mean)}
        v = yield Stage(name="u", variables={"U": start}, fixed=fixed, objective=self.objective, lr=self.eta)
        U = unit_rows(v["U"].cpu().double())
        d = U @ b[:, :, None]  # 1 / s
        return (U @ M / d).nan_to_num(0, 0, 0), d * (P @ torch.linalg.pinv(U)).mT

    def objective(self, v: Variables) -> Tensor:
        """What U minimizes, (R,)."""
        U = unit_rows(v["U"])
        s = U @ v["M"]
        return self.decor * decorrelation(U, self.T) - self.ne * negentropy(s).mean(1) + self.regularizer(s)

    def regularizer(self, s: Tensor) -> Tensor:
        """Small for inputs of the layer, at variance 1, such as are expected: (R, B, n) -> (R,)."""
        return self.tv * total_variation(s.unflatten(2, self.observations[0].image_shape))

    def labels_by_dz(self, layer: FirstLinear, images: Tensor, dz: Tensor) -> Tensor:
        """Labels (R, B) of images (R, B, C, H, W) by their dL/dz (R, B, m)."""
        return torch.stack([labels_of(layer, *each) for each in zip(self.of_instances, images, dz, strict=True)])


def spanning_one(pixels: Tensor) -> Tensor:
    """Images (..., C, H, W), clamped to [0, 1]; one that would span more is first scaled to it."""
    low, high = pixels.amin((-3, -2, -1), keepdim=True), pixels.amax((-3, -2, -1), keepdim=True)
    wide = high - low > 1 + LEEWAY
    return torch.where(wide, (pixels - low) / (high - low).where(wide, 1), pixels).clamp(0, 1)
