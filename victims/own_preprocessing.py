"""The preprocessing that belongs to a model: what it says, what it does itself, or what its library says."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from victims.names import is_own
from victims.preprocessing import Preprocessing
from victims.victim import copied, passing

NAMES = ("mean", "std")


def declared(model: nn.Module, image_shape: tuple[int, int, int]) -> Preprocessing | None:
    """What a model says by its attributes `mean` and `std`, for all channels or for each; None if nothing.

    Where its forward uses them, or the layer that images enter has them and does, the model normalizes by itself:
    images in [0, 1] enter it as they are.

    Args:
        image_shape: (C, H, W).
    """
    name = type(model).__name__
    if who := normalizes(model, image_shape):
        return Preprocessing((0.0,), (1.0,), f"as {who} normalizes by itself")
    mean, std = (plain_numbers(getattr(model, attribute, None)) for attribute in NAMES)
    return Preprocessing(mean, std, f"the attributes of {name}") if mean and std else None


@torch.no_grad()
def normalizes(model: nn.Module, image_shape: tuple[int, int, int]) -> str | None:
    """What normalizes images in a model's forward: the class of the model or of a part of it; None if nothing does.

    It is observed: images enter the part, and its `mean` and `std`, changed, change the logits.
    """
    tried = copied(model).eval()
    parts = {name: part for name, part in tried.named_modules() if all(hasattr(part, n) for n in NAMES)}
    if not parts:
        return None
    like = next(tried.parameters())
    images = torch.rand(2, *image_shape, generator=torch.Generator().manual_seed(0)).to(like)
    try:
        with torch.random.fork_rng(devices=[]), passing(parts) as seen:
            before = tried(images)
        entered = [n for n, calls in seen.items() if calls and torch.equal(calls[0][0], images)]
        for part in map(parts.__getitem__, entered):
            for name in NAMES:
                change(part, name)
            with torch.random.fork_rng(devices=[]):
                if not torch.equal(tried(images), before):
                    return type(part).__name__
    except Exception:  # what a model cannot do is said where it is tried as a victim
        pass
    return None


def change(part: nn.Module, name: str) -> None:
    """Give another value to an attribute that is a number, several, or a tensor."""
    value = getattr(part, name)
    if isinstance(value, Tensor):
        value.mul_(2).add_(1)
    elif numbers := plain_numbers(value):
        setattr(part, name, [2 * x + 1 for x in numbers] if isinstance(value, tuple | list) else 2 * numbers[0] + 1)


def plain_numbers(value: Any) -> tuple[float, ...] | None:
    """Numbers as floats: one, a tuple or list of some, or a tensor with one for all or for each channel; else None."""
    if isinstance(value, Tensor):
        value = value.flatten().tolist() if value.squeeze().ndim < 2 else ()
    values = value if isinstance(value, tuple | list) else (value,)
    return tuple(map(float, values)) if values and all(isinstance(v, Real) for v in values) else None


def of_timm(model: nn.Module) -> Preprocessing | None:
    """That of timm's weights of a model; None if it is not timm's."""
    config: Any = getattr(model, "pretrained_cfg", None)
    mean, std = (plain_numbers(config.get(key)) if isinstance(config, Mapping) else None for key in ("mean", "std"))
    return Preprocessing(mean, std, f"timm's configuration of {type(model).__name__}") if mean and std else None


def of_torchvision(name: str) -> Preprocessing | None:
    """That of torchvision's weights of a model; None if it has none. Nothing is downloaded."""
    try:
        transforms: Any = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    except (ValueError, AttributeError):
        return None
    return Preprocessing(tuple(transforms.mean), tuple(transforms.std), f"torchvision's weights of {name}")


def of_model(model: nn.Module, spec: str, image_shape: tuple[int, int, int], *, trained: bool) -> Preprocessing | None:
    """A model's own preprocessing; None if it has none.

    What `declared` finds; else that of timm or torchvision, if the model is theirs and does not have random weights.

    Args:
        spec: the name of the victim.
        image_shape: (C, H, W).
        trained: whether weights are loaded into it. Those of a user's own model are its own anyway.
    """
    library, _, name = spec.partition(":")
    if found := declared(model, image_shape):
        return found
    if library == "torchvision" and trained:
        return of_torchvision(name)
    return of_timm(model) if trained or is_own(spec) else None
