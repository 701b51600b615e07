"""The network of Learning to Invert (Wu, Chen, Guo, Weinberger, *Learning To Invert*, UAI 2023)."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from priors.inverters import Inverter
from victims.victim import Gradient, Victim


class LTI(Inverter):
    """Learning to Invert: a perceptron of three layers from an update to its images.

    What the client zeroed or changed is fed as it is received. A large update is hashed first: every entry is added,
    with a sign of its own, to one of so many numbers. The paper's code feeds the entries in their own units; here every
    tensor is divided by the root mean square of its entries over the first updates of the training, as the tensors of
    one update can differ by orders of magnitude.

    Args:
        setting, signature, batch, image_shape: as `Inverter` has them.
        entries: of each tensor of an update, in order.
        width: of both hidden layers. In the paper 3000 for one image and, of LeNet, 10 000 for four; of a hashed
            ResNet-20 3000 for four too.
        hashed: numbers to which an update is hashed; 0 feeds all of its entries.
    """

    scale: Tensor

    def __init__(
        self,
        *,
        setting: Mapping[str, str],
        signature: Sequence[float],
        batch: int,
        image_shape: Sequence[int],
        entries: Sequence[int],
        width: int = 3000,
        hashed: int = 0,
    ) -> None:
        super().__init__(setting=setting, signature=signature, batch=batch, image_shape=image_shape)
        self.entries, self.hashed = list(entries), hashed
        self.register_buffer("scale", torch.ones(len(self.entries)))
        self.body = nn.Sequential(
            nn.Linear(hashed or sum(self.entries), width), nn.ReLU(),
            nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, batch * torch.Size(image_shape).numel()), nn.Sigmoid(),
        )  # fmt: skip

    @classmethod
    def options(
        cls, victim: Victim, image_shape: tuple[int, int, int], batch: int, *, width: int | None, hashed: int
    ) -> dict[str, Any]:
        entries = [p.numel() for p in victim.parameters.values()]
        return {"entries": entries, "width": width or 1000, "hashed": hashed}

    def prepare(self, update: Gradient, labels: Tensor) -> None:
        self.scale.copy_(torch.stack([g.square().mean().sqrt() for g in update.values()]).clamp(min=1e-30))

    def read(self, update: Gradient, labels: Tensor) -> Tensor:
        """(R, D), or hashed (R, `hashed`); the labels are not used."""
        u = torch.cat([g.flatten(1) / s for g, s in zip(update.values(), self.scale, strict=True)], 1)
        if not self.hashed:
            return u
        place, sign = (each.to(u.device) for each in hashing(u.shape[1], self.hashed))
        mean = (self.hashed / u.shape[1]) ** 0.5  # to numbers of about the size that the entries have
        return u.new_zeros(len(u), self.hashed).index_add(1, place, u * sign) * mean

    def decode(self, read: Tensor) -> Tensor:
        return self.body(read).unflatten(1, (self.batch, *self.image_shape))

    def errors(self, images: Tensor, truth: Tensor) -> Tensor:
        """Under the assignment of images to private ones that makes their mean least."""
        errors = (images[:, :, None] - truth[:, None]).square().flatten(3).mean(3)  # (R, B, B)
        chosen = [linear_sum_assignment(each) for each in errors.detach().cpu().numpy()]
        return torch.stack([each[pair] for each, pair in zip(errors, chosen, strict=True)])


@cache
def hashing(entries: int, numbers: int) -> tuple[Tensor, Tensor]:
    """For every entry the number to which it is added, and its sign."""
    draws = torch.Generator().manual_seed(0)
    place = torch.randint(numbers, (entries,), generator=draws, device="cpu")
    return place, 2.0 * torch.randint(2, (entries,), generator=draws, device="cpu") - 1
