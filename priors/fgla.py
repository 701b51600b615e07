"""The decoder of FGLA (Xue et al., *Fast Generation-Based Gradient Leakage Attacks*)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from priors.inverters import Inverter
from victims.classifier import classifiers
from victims.errors import InputError
from victims.victim import Gradient, Victim


class Residual(nn.Sequential):
    """x + two convolutions of relu(x)."""

    def __init__(self, channels: int) -> None:
        layers = [nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)]
        super().__init__(*layers, nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class FGLA(Inverter):
    """FGLA: a decoder of the features that each class's gradient holds, for batches of distinct labels.

    The classifier's gradient is dW = sum_i (p_i - y_i) f_i^T / B over the images' features f_i. The row of a label that
    one image has is that image's feature times p - 1, plus the others' times their small p, which the rows of absent
    classes show.

    The authors train their decoder on the raw features that the model has of single images, without gradients, batches
    or a defense. Here it is trained on what is read of updates of whole batches under the defense, standardized. Their
    victim, a ResNet without average pooling, has features of 2048 x 7 x 7, which transposed convolutions of stride 2,
    LeakyReLU and residual blocks with batch norm make an image of; here any feature is a vector, a map of 1 x 1, and
    the blocks have ReLU and no batch norm.

    Args:
        setting, signature, batch, image_shape: as `Inverter` has them.
        classifier: the name of the victim's linear classifier.
        features: that enter it.
        width: channels of the first map, 4 x 4; every doubling of the side halves them. Assumed.
    """

    distinct = True
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        setting: Mapping[str, str],
        signature: Sequence[float],
        batch: int,
        image_shape: Sequence[int],
        classifier: str,
        features: int,
        width: int = 128,
    ) -> None:
        super().__init__(setting=setting, signature=signature, batch=batch, image_shape=image_shape)
        self.classifier, side = classifier, 4
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        layers: list[nn.Module] = [nn.ConvTranspose2d(features, width, 4), *(Residual(width) for _ in range(3))]
        while side < max(image_shape[1:]):
            side, width, before = 2 * side, max(8, width // 2), width
            layers += [nn.ConvTranspose2d(before, width, 4, 2, 1), *(Residual(width) for _ in range(3))]
        self.body = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(width, image_shape[0], 3, padding=1), nn.Sigmoid())

    @classmethod
    def options(
        cls, victim: Victim, image_shape: tuple[int, int, int], batch: int, *, width: int | None, hashed: int
    ) -> dict[str, Any]:
        (name, share), *others = classifiers(victim.model, image_shape).items()
        if others or share != 1 or f"{name}.bias" not in victim.parameters:
            raise InputError("fgla reads one linear classifier with bias; choose another --victim.")
        classes, features = victim.parameters[f"{name}.weight"].shape
        if batch >= classes:
            raise InputError(f"fgla needs a class that is not in the batch; the victim tells {classes} apart.")
        return {"classifier": name, "features": features, "width": width or 128}

    def prepare(self, update: Gradient, labels: Tensor) -> None:
        """The features' mean and deviation: those of some victims hardly differ from image to image."""
        f = self.read(update, labels).flatten(0, 1)
        self.mean.copy_(f.mean(0))
        self.std.copy_(f.std(0).clamp(min=1e-6))

    def read(self, update: Gradient, labels: Tensor) -> Tensor:
        """The images' features in the order of their labels, (R, B, d).

        f_y = (dW[y] - o_W) / (db[y] - o_b), where the offsets o are the means over the classes that are absent, times
        (B - 1) / B: one image's share of an absent class's row is the same as of another's. Where sparsification left
        nothing of db, entries are 0 instead of infinite or NaN, as in the authors' code.
        """
        dW, db = update[f"{self.classifier}.weight"], update[f"{self.classifier}.bias"]
        each = torch.arange(len(dW), device=dW.device)[:, None]
        absent = torch.ones_like(db).index_put((each, labels), torch.zeros_like(db[:1, :1]))
        share = absent / absent.sum(1, keepdim=True) * (self.batch - 1) / self.batch
        o_W, o_b = (share[..., None] * dW).sum(1, keepdim=True), (share * db).sum(1, keepdim=True)
        return ((dW[each, labels] - o_W) / (db[each, labels] - o_b)[..., None]).nan_to_num(0.0, 0.0, 0.0)

    def decode(self, read: Tensor) -> Tensor:
        h, w = self.image_shape[1:]
        f = (read.flatten(0, 1) - self.mean) / self.std
        return self.body(f[..., None, None])[..., :h, :w].unflatten(0, read.shape[:2])

    def errors(self, images: Tensor, truth: Tensor) -> Tensor:
        """In the order of the labels."""
        return (images - truth).square().mean((2, 3, 4))
