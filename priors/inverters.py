"""What every trained inverter provides: a prior that makes the images of an update in one forward pass."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from math import isclose
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from priors.base import Prior
from victims.errors import InputError
from victims.losses.cross_entropy import CrossEntropy
from victims.observation import Observation
from victims.victim import Gradient, Victim, gradient


class Inverter(Prior):
    """A network that was trained to give the images of an update, for one victim, in one forward pass.

    A subclass says what the network `read`s of an update, how it `decode`s that, and its `errors`.

    Attributes:
        setting: options of the run that it was trained for, by name, such as `{"victim": "lenet", "batch": "1"}`.
        signature: that of the victim, see `signature`.
        batch: images in an update.
        distinct: whether it tells the images of a batch apart by their labels.
        body: the part that is trained.
    """

    kind = "inverter"
    distinct: ClassVar[bool] = False
    body: nn.Module

    def __init__(
        self, *, setting: Mapping[str, str], signature: Sequence[float], batch: int, image_shape: Sequence[int]
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.setting, self.signature, self.batch = dict(setting), list(signature), batch
        self.image_shape = (channels, height, width)

    def check(self, observation: Observation) -> None:
        """Refuse an update of another kind or victim than it was trained for.

        Raises:
            InputError: says what differs, and only what changes that.
        """
        another = "or train one by `prior train-inverter` and give it as --prior"
        if observation.batch_size != self.batch:
            differs = f"batches of {self.batch}, not {observation.batch_size}; run with --batch {self.batch}, {another}"
        elif observation.image_shape != self.image_shape:
            shape = "x".join(map(str, self.image_shape))
            differs = f"images of {shape}; run with {self.options_of('data', 'size')}, {another}"
        elif observation.knowledge.local:
            differs = "gradients, not for the updates of local training; leave --lr out"
        elif self.fits(observation.victim):
            return
        elif type(observation.victim.criterion) is not CrossEntropy:
            differs = "the gradients of cross-entropy; leave --loss out, if the victim is the one of its training"
        else:
            of_victim = set(self.setting) - {"batch", "size", "defense"}
            differs = (
                "the gradients of one victim with its initial weights, and this one has others, or another mode or "
                f"preprocessing; run with {self.options_of(*of_victim)} and no training of the victim, {another}, "
                "where --victim-weights takes a file; or, in a sealed verification, with --new-weights false"
            )
        raise InputError(f"the inverter was trained for {differs}.")

    def fits(self, victim: Victim) -> bool:
        """Whether it is the one of its training."""
        found = signature(victim, self.image_shape)
        rounding = 1e-4 * max(self.signature, default=0)  # all that the norm of a tensor may be whose gradient is zero
        alike = partial(isclose, rel_tol=1e-3, abs_tol=rounding)
        return len(found) == len(self.signature) and all(map(alike, found, self.signature))

    def options_of(self, *names: str) -> str:
        """Those of its setting, as they are given to a run."""
        chosen = {name: value for name, value in self.setting.items() if name in names}
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in chosen.items())

    @classmethod
    @abstractmethod
    def options(
        cls, victim: Victim, image_shape: tuple[int, int, int], batch: int, *, width: int | None, hashed: int
    ) -> dict[str, Any]:
        """Arguments of its own that it is built with, before it is trained for a victim.

        Args:
            width, hashed: as `prior train-inverter` has them; those that it has no use for are ignored.

        Raises:
            InputError: it cannot invert updates of this victim or batch.
        """

    @abstractmethod
    def read(self, update: Gradient, labels: Tensor) -> Tensor:
        """Received updates, (R, *shape) per parameter, and their labels (R, B) -> what is decoded, (R, ...)."""

    @abstractmethod
    def decode(self, read: Tensor) -> Tensor:
        """(R, ...) -> images (R, B, C, H, W) in [0, 1]."""

    @abstractmethod
    def errors(self, images: Tensor, truth: Tensor) -> Tensor:
        """The mean squared error of every image, (R, B); their mean is what it is trained on.

        Args:
            images: what it made, (R, B, C, H, W).
            truth: the private images in the order of their labels, (R, B, C, H, W).
        """

    def prepare(self, update: Gradient, labels: Tensor) -> None:
        """Before training: set what is not learned, from the first updates and labels, as `read` has them."""

    def forward(self, update: Gradient, labels: Tensor) -> Tensor:
        """Received updates, (R, *shape) per parameter, and labels (R, B) -> images (R, B, C, H, W) in [0, 1]."""
        return self.decode(self.read(update, labels))


def signature(victim: Victim, image_shape: tuple[int, int, int]) -> list[float]:
    """The norms of a victim's gradient on two drawn images: what tells victims apart.

    They depend on its weights, mode, loss and preprocessing, and are the same but for rounding on every machine.
    """
    images = torch.rand(2, *image_shape, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1], device=victim.mean.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for models that draw
        found = gradient(victim, victim.normalize(images.to(victim.mean)), labels)
    return [float(g.norm()) for g in found.values()]
