"""From what a user writes on the command line to classes and objects.

A name is that of a file of the project, or a dotted path to a class of the user's own; NAME:ARGUMENT:... also says what
it is built with. Priors have names of their own, see `priors.names`.
"""

import importlib
import inspect
import math
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from torch import nn

from attacks.base import Attack
from benchmark.names import known
from defenses.base import Chain, Defense
from victims.choices import Resize
from victims.client import LocalTraining
from victims.data.base import ImageData, check_split
from victims.errors import InputError
from victims.losses.base import Loss, as_loss
from victims.names import at, imported, nearest, unknown
from victims.optimizers.base import Optimizer

T = TypeVar("T")

ClassKind = Literal["attack", "data", "victim", "defense", "loss", "local optimizer"]

KINDS: dict[ClassKind, type] = {
    "attack": Attack,
    "data": ImageData,
    "victim": nn.Module,
    "defense": Defense,
    "loss": Loss,
    "local optimizer": Optimizer,
}
"""What classes of a kind derive from."""

OF_IMAGES = ("image_shape", "num_classes")
"""What a victim is built for."""


def registered(kind: ClassKind) -> dict[str, type]:
    """Every class of this project of a kind, by name."""
    return {name: find(kind, name) for name in known(kind)}


def find(kind: ClassKind, name: str) -> type:
    """The class that `name` means.

    Raises:
        InputError: lists the known names and the nearest one, or says what is wrong with the dotted path.
    """
    there = known(kind)
    if name in there:
        return getattr(importlib.import_module(there[name].module), there[name].attribute)
    if "." not in name:
        raise InputError(unknown(kind, name, there))
    return imported(kind, name, KINDS[kind])


def open_data(text: str, split: str, size: int, data_dir: Path, resize: Resize = "shorter") -> ImageData:
    """A split of the data set `name` or `name:argument`; those that come as files are told where, and how to resize.

    Raises:
        InputError: the argument is missing or not taken, or another resize is asked of a data set that takes none.
    """
    name, _, argument = text.partition(":")
    make = find("data", name)
    parameters = parameters_of(make)
    own = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if (argument and not own) or (not argument and any(p.default is p.empty for p in own)):
        raise InputError(f"data '{text}' does not fit; write {':'.join([name, *(p.name.upper() for p in own)])}.")
    if resize != "shorter" and "resize" not in parameters:
        raise InputError(f"{name} has its own way of resizing; leave --resize out.")
    files = {"data_dir": data_dir, "resize": resize}
    options = {option: value for option, value in files.items() if option in parameters}
    data = make(*([argument] if argument else []), split=split, size=size, **options)
    if "." in name:
        check_split(data, size)
    return data


def open_defense(text: str) -> Defense | None:
    """None, or what `name:parameter:...` means; several have + between them and come in this order.

    Raises:
        InputError: as `one_defense` does.
    """
    if text == "none":
        return None
    parts = [one_defense(part) for part in text.split("+")]
    return parts[0] if len(parts) == 1 else Chain(parts)


def one_defense(text: str) -> Defense:
    """The defense of `name` or `name:parameter:...`; parameters that have defaults can be left out from the end.

    Raises:
        InputError: there is none of this name, or the parameters do not fit it.
    """
    return made("defense", text, find("defense", text.partition(":")[0]))


def open_victim(text: str) -> Callable[..., nn.Module]:
    """What builds the victim of `name` or `name:parameter:...`, called with `image_shape` and `num_classes`.

    Raises:
        InputError: there is none of this name, or the parameters do not fit it.
    """
    name, colon, _ = text.partition(":")
    if not colon:
        return find("victim", name)
    if "." not in name and name not in (there := known("victim")):
        raise InputError(
            f"victim '{text}' is of no library known here, and none of this suite; {nearest(name, there)}write "
            "torchvision:NAME or timm:NAME, or a name from the list of victims."
        )
    make = find("victim", name)
    return partial(make, **arguments("victim", text, make, OF_IMAGES))


def open_loss(text: str) -> Loss:
    """The loss of `name` or `name:parameter:...`, or at a dotted path: a function, or a class that makes one.

    Raises:
        InputError: there is none of this name, it cannot be called, or the parameters do not fit it.
    """
    name = text.partition(":")[0]
    if name in known("loss"):
        return made("loss", text, find("loss", name))
    if "." not in name:
        raise InputError(unknown("loss", name, known("loss")))
    item = at("loss", name)
    if not callable(item):
        raise InputError(f"'{name}' is no function of logits and labels, and no class that makes one.")
    return as_loss(made("loss", text, item) if isinstance(item, type) else item)


def open_optimizer(text: str) -> Optimizer:
    """The local optimizer of `name` or `name:parameter:...`.

    Raises:
        InputError: there is none of this name, or the parameters do not fit it.
    """
    return made("local optimizer", text, find("local optimizer", text.partition(":")[0]))


def open_training(
    lr: float | None, epochs: int, mini_batch: int | None, clients: int, optimizer: str, *, fix: str
) -> LocalTraining | None:
    """What clients do before they share, see `LocalTraining`; without a learning rate nothing, which is FedSGD: None.

    Args:
        optimizer: as `open_optimizer` takes it.
        fix: how to give a learning rate.

    Raises:
        InputError: a count below 1, no learning rate for what needs one, or no such optimizer.
    """
    if lr is not None:
        rule = open_optimizer(optimizer)
        return LocalTraining(lr=lr, epochs=epochs, mini_batch=mini_batch, clients=clients, optimizer=rule)
    if (epochs, mini_batch, clients, optimizer) != (1, None, 1, "sgd"):
        raise InputError(f"local epochs, mini-batches, optimizers and several clients need a learning rate; {fix}.")
    return None


def made(kind: ClassKind, text: str, make: Callable[..., T]) -> T:
    """What `make` builds of the parameters in `name:parameter:...`; those with defaults can be left out from the end.

    Raises:
        InputError: the parameters do not fit it.
    """
    return make(**arguments(kind, text, make))


def arguments(kind: ClassKind, text: str, make: Callable[..., Any], given: Collection[str] = ()) -> dict[str, Any]:
    """The parameters in `name:parameter:...` by name, as `make` takes them.

    Args:
        given: parameters that are given otherwise.

    Raises:
        InputError: they do not fit.
    """
    name, *values = text.split(":")
    own = [p for p in parameters_of(make).values() if p.name not in given]
    known = [p for p in own if p.kind is p.POSITIONAL_OR_KEYWORD]
    needed = [p for p in known if p.default is p.empty]
    if not len(needed) <= len(values) <= len(known):
        optional = "".join(f"[:{p.name.upper()}]" for p in known if p not in needed)
        names = ":".join([name, *(p.name.upper() for p in needed)])
        raise InputError(f"{kind} '{text}' does not fit; write {names}{optional}.")
    return {p.name: parse(p, value, f"{kind} {name}") for p, value in zip(known, values, strict=False)}


def parameters_of(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """What a class or function is called with, by name; annotations that are text are resolved.

    Raises:
        InputError: an annotation names what is not there.
    """
    function = make.__init__ if isinstance(make, type) else make  # type: ignore[misc]
    try:
        hints = get_type_hints(function)
    except (NameError, AttributeError, TypeError) as error:
        raise InputError(f"{make.__module__}.{make.__name__}: an annotation cannot be read ({error}).") from None
    found = inspect.signature(make).parameters
    return {name: p.replace(annotation=hints.get(name, p.annotation)) for name, p in found.items()}


def parse(parameter: inspect.Parameter, text: str, what: str) -> Any:
    """`text` as the parameter's annotated type; without an annotation as that of its default, else as it is.

    Raises:
        InputError: it is none, or a number that is NaN or infinite; says what was expected.
    """
    wanted = parameter.annotation
    if wanted is parameter.empty:
        wanted = str if parameter.default in (parameter.empty, None) else type(parameter.default)
    if get_origin(wanted) in (Union, UnionType):  # X | None
        if text.lower() == "none":
            return None
        wanted = next(kind for kind in get_args(wanted) if kind is not type(None))
    if get_origin(wanted) is Literal:
        if text in get_args(wanted):
            return text
        raise InputError(f"{what} {parameter.name} is one of {', '.join(get_args(wanted))}, not '{text}'.")
    try:
        if wanted is bool:
            return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
        value = wanted(text)
    except InputError as error:
        raise InputError(f"{what} {parameter.name}: {error}") from None
    except (KeyError, ValueError, TypeError):
        kind = getattr(wanted, "__name__", wanted)
        raise InputError(f"{what} {parameter.name} is a {kind}, not '{text}'.") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{what} {parameter.name} is a finite number, not '{text}'.")
    return value
