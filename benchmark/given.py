"""What a caller of the Python interface gives, checked before anything is computed."""

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn

from victims.errors import InputError
from victims.names import nearest
from victims.observation import Observation
from victims.own_preprocessing import declared
from victims.preprocessing import Preprocessing
from victims.wrappers import inside


def preprocessing_of(
    model: nn.Module,
    shape: tuple[int, int, int],
    mean: float | Sequence[float] | Tensor | None,
    std: float | Sequence[float] | Tensor | None,
) -> Preprocessing:
    """As given, or what the model declares; else images enter the model as they are.

    Args:
        shape: (C, H, W) of the images.

    Raises:
        InputError: they are no numbers, not as many as channels, or cannot be used.
    """
    if mean is None and std is None:
        return (declared(inside(model)) or Preprocessing((0.0,), (1.0,))).of_channels(shape[0])
    if mean is None or std is None:
        lacks = "mean" if mean is None else "std"
        raise InputError(f"mean= and std= go together, and {lacks} is missing; give both, or neither.")
    return Preprocessing(per_channel("mean", mean, shape[0]), per_channel("std", std, shape[0]))


def per_channel(name: str, given: float | Sequence[float] | Tensor, channels: int) -> tuple[float, ...]:
    """One number for each channel, where there may be one for all.

    Raises:
        InputError: they are no numbers, or not as many as channels.
    """
    try:
        values = torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"{name} is of type {type(given).__name__}, and no numbers; give one, or one for each of the {channels} "
            "channels."
        ) from None
    if values.ndim and values.numel() != channels:
        raise InputError(f"{name} has {values.numel()} numbers; give one for each of the {channels} channels.")
    return tuple(values.flatten().expand(channels).tolist())


def checked_labels(labels: Tensor, classes: int) -> Tensor:
    """Labels (B,) as int64, or probabilities (B, K) as they are.

    Args:
        classes: the model's; 1 if its one logit tells odd classes from even.

    Raises:
        InputError: they are not of these classes.
    """
    if labels.is_floating_point():
        if labels.shape[-1] != max(2, classes):
            raise InputError(f"labels have {labels.shape[-1]} probabilities each; the model has {classes} classes.")
        return labels
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or (classes > 1 and highest >= classes):
        raise InputError(f"labels go from {lowest} to {highest}; the model has {classes} classes, counted from 0.")
    return labels.long()


def check_batch(images: Tensor, labels: Tensor) -> None:
    """Refuse what is no batch of images with their labels.

    Raises:
        InputError: a wrong shape, type or range.
    """
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
        raise InputError("images and labels are no tensors; give torch.as_tensor(...) of them.")
    if images.ndim != 4 or not images.is_floating_point() or not images.numel():
        raise InputError(f"images are {images.dtype} {tuple(images.shape)}; give floats (B, C, H, W) in [0, 1].")
    low, high = (float(bound) for bound in images.aminmax())
    if not (low >= 0 and high <= 1):
        raise InputError(f"images go from {low:.3g} to {high:.3g}; give them in [0, 1], and their mean= and std=.")
    if labels.is_floating_point():
        rows = labels.ndim == 2 and len(labels) == len(images)
        if not rows or not (labels >= 0).all() or not torch.allclose(labels.sum(1), labels.new_ones(()), atol=1e-3):
            raise InputError(
                f"labels are {labels.dtype} {tuple(labels.shape)}; give {len(images)} integers, or {len(images)} rows "
                "of probabilities, which sum to 1."
            )
    elif labels.shape != images.shape[:1] or labels.dtype == torch.bool:
        raise InputError(f"labels are {labels.dtype} {tuple(labels.shape)}; give {len(images)} integers.")


def check_update(observation: Observation) -> None:
    """Refuse an update that is not of the observation's victim, as `dataclasses.replace` can put one in from elsewhere.

    Raises:
        InputError: another name, shape or type than that of a parameter.
    """
    shared, update = observation.victim.parameters, observation.update
    if other := sorted(update.keys() ^ shared.keys()):
        what = "lacks" if other[0] in shared else "has"
        raise InputError(f"the update {what} '{other[0]}'; give a tensor for each trained parameter, by its name.")
    for name, p in shared.items():
        g: object = update[name]
        if not isinstance(g, Tensor) or (g.shape, g.dtype, g.device) != (p.shape, p.dtype, p.device):
            given = f"{g.dtype} {tuple(g.shape)} on {g.device}" if isinstance(g, Tensor) else f"a {type(g).__name__}"
            raise InputError(f"'{name}' of the update is {given}; give {p.dtype} {tuple(p.shape)} on {p.device}.")


def check_names(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse mistyped keywords.

    Raises:
        InputError: names the nearest known one.
    """
    for name in given:
        if name not in known:
            raise InputError(f"unknown {what} '{name}'; {nearest(name, known)}known: {', '.join(known)}.")
