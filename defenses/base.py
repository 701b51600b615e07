"""What every defense provides, and defenses one after another."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from inspect import getattr_static
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from victims.client import GradientFn
from victims.contract import Broken, line_of
from victims.observation import Estimate, Transform
from victims.trial import type_and_shape
from victims.victim import Gradient, Victim

UPDATE = "a defense keeps the names and shapes of the update"
STATIC = "estimate is static"


class Defense(ABC):
    """What a client does against leakage, and the surrogate of it that an adaptive attacker works with.

    A client can act at four places, and a defense overrides the methods of those at which it does: the model that is
    trained, the images that form a batch, the gradient that is computed from them, the update that is sent. All
    randomness comes from the generators that are passed in.

    Class attributes:
        examples: uses of it as DEFENSE= takes them, a mild one first; two with different parameters, if it has any. The
            contract tests run every attack under the first, and one attack under all.
        surrogates: other ways than `estimate` to build the surrogate, by their names in SURROGATE=.
        least_images: in a step of the client, for it to change anything.
        changes_images: whether the client computes on other images than those of its batch.
        innermost: whether it gives noise to the model itself, which others must not take for weights.
    """

    examples: ClassVar[tuple[str, ...]] = ()
    least_images: ClassVar[int] = 1
    changes_images: ClassVar[bool] = False
    innermost: ClassVar[bool] = False
    surrogates: ClassVar[Mapping[str, Estimate]] = {}

    @property
    def axis(self) -> Mapping[str, float]:
        """The name of an axis, and this defense's place on it: a chart shows attacks along the axis.

        Define it where one number says how strong the defense is, and where 0 on the axis is the same as no defense.
        Defenses with the same name of the axis are points of one line. Empty: no chart.
        """
        return {}

    def model(self, model: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
        """The model that server and client share, for images (C, H, W); everybody knows it."""
        return model

    def class_counts(self, batch_size: int) -> list[int]:
        """How many images of each class are in a batch, the largest class first; empty if it does not matter."""
        return []

    def gradient_fn(self, gradient_fn: GradientFn, victim: Victim, generator: torch.Generator) -> GradientFn:
        """How the client computes a gradient in every step of its training, given how it would without the defense."""
        return gradient_fn

    def __call__(self, update: Gradient, generator: torch.Generator) -> Gradient:
        """The update that the client sends instead of this one."""
        return update

    @staticmethod
    @abstractmethod
    def estimate(received: Gradient, victim: Victim) -> Transform:
        """The adaptive attacker's differentiable surrogate of the defense, from what it received alone.

        It is static, so that it cannot see the client's parameters.

        Args:
            received: (R, *shape) per parameter: one received update for each instance, in units of a gradient.
            victim: as the attacker has it.
        """

    def surrogate(self, name: str = "") -> Estimate:
        """How an attacker who knows which defense is used, but not its parameters, builds the surrogate.

        Args:
            name: of one of `surrogates`; where there is none of this name it is `estimate`.
        """
        return self.surrogates.get(name, type(self).estimate)


def parts(defense: Defense | None) -> tuple[Defense, ...]:
    """The defenses of a chain in their order; any other is the only one."""
    if defense is None:
        return ()
    return defense.parts if isinstance(defense, Chain) else (defense,)


def applied(part: Defense, update: Gradient, generator: torch.Generator) -> Gradient:
    """What a defense makes of an update.

    Raises:
        Broken: it has other names or shapes.
    """
    sent = part(update, generator)
    check_update(sent, update, type(part).__call__, type(part))
    return sent


def check_update(sent: Any, update: Gradient, *places: Any) -> None:
    """
    Args:
        places: what made `sent`.

    Raises:
        Broken: it is not a tensor of the same shape for each of the names.
    """
    fix = "give a dictionary with a tensor of the same shape for every name of the update"
    if not isinstance(sent, Mapping):
        raise Broken(UPDATE, f"it gives {type_and_shape(sent)}; {fix}", line_of(*places))
    if wrong := sorted(sent.keys() ^ update.keys()):
        what = "leaves out" if wrong[0] in update else "adds"
        raise Broken(UPDATE, f"it {what} '{wrong[0]}'; {fix}", line_of(*places))
    for name, tensor in update.items():
        if not isinstance(sent[name], Tensor) or sent[name].shape != tensor.shape:
            wrong_shape = f"it gives {type_and_shape(sent[name])} for '{name}', which is {tuple(tensor.shape)}"
            raise Broken(UPDATE, f"{wrong_shape}; {fix}", line_of(*places))


def check_estimate(part: Defense) -> None:
    """
    Raises:
        Broken: an attacker cannot call its `estimate`, for it would see the client's parameters.
    """
    if not isinstance(getattr_static(type(part), "estimate"), staticmethod):
        fix = "write @staticmethod above it, and take (received, victim)"
        wrong = f"{type(part).__name__}.estimate takes self, which has the client's parameters; {fix}"
        raise Broken(STATIC, wrong, line_of(type(part).estimate, type(part)))


class Chain(Defense):
    """Defenses one after another, in the order of `DEFENSE=clipping:4+noise:0.01`."""

    def __init__(self, parts: Sequence[Defense]) -> None:
        self.parts = tuple(parts)

    def model(self, model: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
        for part in self.parts:
            model = part.model(model, image_shape)
        return model

    def class_counts(self, batch_size: int) -> list[int]:
        """The counts of the first part that has any."""
        return next(filter(None, (part.class_counts(batch_size) for part in self.parts)), [])

    def gradient_fn(self, gradient_fn: GradientFn, victim: Victim, generator: torch.Generator) -> GradientFn:
        """In the order of the parts, but what gives the model noise is nearest to it, and what needs several images
        comes first: dp_sgd goes on with single ones."""
        order = sorted(self.parts, key=lambda part: (not part.innermost, part.least_images))
        for part in order:  # the last one wraps all others
            gradient_fn = part.gradient_fn(gradient_fn, victim, generator)
        return gradient_fn

    def __call__(self, update: Gradient, generator: torch.Generator) -> Gradient:
        for part in self.parts:
            update = applied(part, update, generator)
        return update

    @staticmethod
    def estimate(received: Gradient, victim: Victim) -> Transform:
        raise TypeError("the surrogate of a chain depends on its parts; call `surrogate`")

    def surrogate(self, name: str = "") -> Estimate:
        """The surrogates of the parts, each estimated from what was received at the end, applied in their order."""
        estimates = [part.surrogate(name) for part in self.parts]

        def estimate(received: Gradient, victim: Victim) -> Transform:
            transforms = [of_part(received, victim) for of_part in estimates]

            def transform(gradient: Gradient) -> Gradient:
                for of_part in transforms:
                    gradient = of_part(gradient)
                return gradient

            return transform

        return estimate
