"""The model that a client trains, out of what people put around it; and what is no model that can be copied."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy, deepcopy
from textwrap import shorten
from types import MappingProxyType, MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from victims.closures import Follow
from victims.errors import InputError

M = TypeVar("M", bound=nn.Module)

WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "OptimizedModule": "_orig_mod",  # of torch.compile
    "AbstractGradSampleModule": "_module",  # of Opacus
}
"""Classes of torch and Opacus, and where they keep the model."""

OF_TORCH = frozenset(vars(nn.Module()))
"""Attributes of a layer that are torch's own, parameters and buffers among them."""


def unwrapped(model: nn.Module) -> nn.Module:
    """A copy of the model, and of each of its layers, without wrappers; its parameters have the inner model's names.

    Raises:
        InputError: see `check_model`.
    """
    model = inside(model)
    check_model(model)
    model = copied(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            setattr(module, name, inside(child))
        for hooks in (module._forward_hooks, module._backward_hooks):
            for key in [key for key, hook in hooks.items() if of_opacus(hook)]:
                del hooks[key]  # they collect gradients of single images, and change none
    return model


def inside(model: Any) -> Any:
    """The model in a wrapper, or in several around each other; what is none stays as it is."""
    for kind in type(model).__mro__:
        if kind.__name__ in WRAPPERS and kind.__module__.partition(".")[0] in ("torch", "opacus"):
            return inside(getattr(model, WRAPPERS[kind.__name__]))
    return model


def of_opacus(hook: Any) -> bool:
    return str(getattr(getattr(hook, "func", hook), "__module__", "")).startswith("opacus.")


def check_model(model: nn.Module) -> None:
    """Refuse what is no model in Python with weights, or whose copy would compute something else.

    Raises:
        InputError: one line, with the reason.
    """
    if not isinstance(model, nn.Module):
        seen = f"the class {model.__name__}" if isinstance(model, type) else f"of type {type(model).__name__}"
        raise InputError(f"the model is {seen}; give an object of a torch.nn.Module.")
    name = type(model).__name__
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise InputError(f"{name} is compiled by torch.jit, where weights cannot be exchanged; give the Python model.")
    if "range_constraints" in vars(model):
        raise InputError(f"{name} comes from torch.export, which keeps one mode and batch; give the Python model.")
    for module in model.modules():
        if inside(module) is not module:
            continue
        forward = vars(module).get("forward")
        if forward is not None and not (isinstance(forward, MethodType) and forward.__self__ is module):
            raise InputError(
                f"the forward of {type(module).__name__} was replaced by a function that keeps the original's weights; "
                "write a class with that forward."
            )
    for key, p in model.named_parameters():
        if is_lazy(p):
            raise InputError(f"{key} of {name} is lazy and has no values yet; call the model on a batch first.")
        if p.is_meta:
            raise InputError(f"{key} of {name} is on the meta device and has no values; load the weights first.")
        if p._backward_hooks or p._post_accumulate_grad_hooks:
            raise InputError(
                f"{key} of {name} has a hook on its gradient, which the update would not go through; remove it, and "
                "give what it does as a defense."
            )


def copied(model: M, memo: Mapping[int, Any] = MappingProxyType({})) -> M:
    """A deep copy; of what a forward pass left in its layers only the values, for torch copies no tensor's history.

    Args:
        memo: copies that are made already, by `id`, as `deepcopy` takes them.

    Raises:
        InputError: it holds what cannot be copied, such as a lock or an open file.
    """
    values = dict(memo)
    seen: set[int] = set()
    left: list[Any] = [vars(module) for module in model.modules()]
    while left:
        kept = left.pop()
        if id(kept) in seen:
            continue
        seen.add(id(kept))
        if isinstance(kept, Mapping):
            left += kept.values()
        elif isinstance(kept, list | tuple):
            left += kept
        elif isinstance(kept, Tensor):
            try:
                value = kept.detach()
            except RuntimeError:  # it belongs to a `vmap` that has ended, and has no value any more
                values[id(kept)] = torch.empty(0)
            else:
                values |= {} if kept.is_leaf else {id(kept): value}
    try:
        made = deepcopy(model, values)
    except Exception as error:  # of whatever the model holds
        why = shorten(f"{type(error).__name__}: {error}", 160)
        raise InputError(
            f"{type(model).__name__} cannot be copied ({why}); give the plain model, before FSDP and without locks, "
            "modules or open files in its attributes."
        ) from None
    follow = Follow(values)
    for module in made.modules():
        follow.inside(vars(module))
    return made


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """What a forward pass leaves in the layers besides parameters and buffers is gone when the context ends.

    Else a layer may keep something that it computed from other weights, or from weights without their history.
    """
    kept = []
    for module in model.modules():
        own = {name: value for name, value in vars(module).items() if name not in OF_TORCH}
        held = {name: copy(value) for name, value in own.items() if type(value) in (dict, list)}
        kept.append((vars(module), own, held))
    try:
        yield
    finally:
        for now, own, held in kept:
            for name in [name for name in now if name not in OF_TORCH and name not in own]:
                del now[name]
            now.update(own)
            for name, value in held.items():
                own[name].clear()
                (own[name].extend if isinstance(value, list) else own[name].update)(value)
