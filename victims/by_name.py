"""Victims by name: one of this suite's or a dotted path to the user's own, `torchvision:NAME`, `timm:NAME`."""

import difflib
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn.parameter import is_lazy

from victims.choices import TRAINING
from victims.contract import line_of, line_of_error
from victims.errors import InputError
from victims.modules import modes_kept, set_mode
from victims.names import is_dotted_path
from victims.trial import said, trial
from victims.victim import Victim
from victims.wrappers import unwrapped

Make = Callable[..., nn.Module]
"""Called as `make(image_shape=(C, H, W), num_classes=K)`."""


def find(spec: str, own: Callable[[str], Make], *, training: bool | None = False) -> Make:
    """A function that builds the victim of this name, and refuses images that it cannot take.

    Args:
        own: finds plain names and dotted paths, with what follows them.
        training: whether the client computes its update in train mode; None leaves every layer in its own mode.

    Raises:
        InputError: the name is unknown; names the nearest one.
    """
    library, _, name = spec.partition(":")
    if library not in LIBRARIES:
        return partial(tried, own(spec), spec, training)
    list_names, make = LIBRARIES[library]
    names = list_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = (
            f"did you mean {', '.join(near)}?" if near else f"its {len(names)} names are listed in its documentation."
        )
        raise InputError(f"{library} has no classifier '{name}'; {hint}")
    return partial(tried, partial(make, name), spec, training)


def of_torchvision(name: str, *, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The unchanged model. Most take color images of any size from 32 or 64 px."""
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes)


def of_timm(name: str, *, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The model; if its form depends on the size of the images, as a transformer's does, it is built for that size."""
    import timm  # takes most of a second, and few runs need it

    channels, *size = image_shape
    sized: dict[str, Any] = {"img_size": tuple(size)} if timm.get_pretrained_cfg_value(name, "fixed_input_size") else {}
    return timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=channels, **sized)


def names_of_timm() -> list[str]:
    import timm

    return timm.list_models()


LIBRARIES: dict[str, tuple[Callable[[], list[str]], Make]] = {
    "torchvision": (partial(torchvision.models.list_models, module=torchvision.models), of_torchvision),
    "timm": (names_of_timm, of_timm),
}


def tried(
    make: Make, spec: str, training: bool | None, *, image_shape: tuple[int, int, int], num_classes: int
) -> nn.Module:
    """The model in its mode, after a trial on two images of noise, see `trial`.

    Raises:
        InputError: it cannot take the images, trains no parameter, has no second derivative, gives no logits, or draws
            random numbers, as dropout does, so that nobody can repeat its gradient.
    """
    own = is_dotted_path(spec)
    change, other = "choose another --victim", "choose another --size, --channels or --victim"
    if own:
        change, other = "change it", "choose another --size or --channels, or change it"
        check_call(make, spec)
    try:
        model = make(image_shape=image_shape, num_classes=num_classes)
        materialize(model, image_shape)
    except InputError:
        raise
    except Exception as error:  # a model may refuse images by any exception
        size = " x ".join(str(side) for side in image_shape)
        place = f" at {line_of_error(error, make)}" if own else ""
        raise InputError(f"{spec} cannot take {size} images ({said(error)}{place}); {other}.") from None
    model = unwrapped(model)
    set_mode(model, training)
    channels = image_shape[0]
    make_victim = partial(Victim, model, mean=(0.0,) * channels, std=(1.0,) * channels, training=training)
    mode = next(mode for mode, flag in TRAINING.items() if flag is training)
    fix = change if mode == "eval" else "use --victim-mode eval"
    name = f"{spec} ({line_of(type(model).forward, type(model))})" if own else spec
    victim, as_given = make_victim(), make_victim(as_given=True)
    given = trial(victim, as_given, (2, *image_shape), f"{name} in {mode} mode", other, fix)
    if given not in (num_classes, 1):
        raise InputError(
            f"{name} gives logits for {given} classes, not {num_classes}; {change}, or give the data the classes of "
            "the model (in an audit: --classes FILE)."
        )
    return model


def check_call(make: Make, spec: str) -> None:
    """
    Raises:
        InputError: it does not take what every victim is built with.
    """
    try:
        signature(make).bind(image_shape=(), num_classes=0)
    except TypeError as error:
        fix = "let it take image_shape=(C, H, W) and num_classes="
        raise InputError(f"{spec} cannot be built ({error}, {line_of(make)}); {fix}.") from None


def materialize(model: nn.Module, image_shape: tuple[int, int, int]) -> None:
    """Draw the weights of a model's lazy layers, in place, by a forward pass that changes nothing else."""
    if any(map(is_lazy, model.parameters())):
        with torch.no_grad(), modes_kept(model):
            model.eval()(torch.zeros(2, *image_shape))
