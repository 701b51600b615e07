"""A victim is tried once, on images of noise, before anything is computed from private ones."""

import random
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from victims.errors import InputError, Notice
from victims.losses.base import check_loss
from victims.small_images import smallest
from victims.victim import Victim, converted, gradient, norm
from victims.wrappers import OF_TORCH

STEP, CLOSE, TRIES = 1e-7, 1e-2, 3  # of finite differences; in one try a kink, as of ReLU, may lie between the two
ROUNDINGS = 30  # that the gradient of a network has gone through, in half precision more than CLOSE


def trial(
    victim: Victim,
    given: Victim,
    shape: Sequence[int],
    name: str,
    other: str,
    fix: str,
    labels_of: Callable[[int], Tensor] | None = None,
) -> int:
    """The number of the victim's logits for an image; the victim forgets earlier passes, see `forget`.

    What is tried is what an attack does by plain autograd: the update's derivative in the pixels, of images as small as
    the victim takes them. A Notice says if the victim does not see all pixels.

    Args:
        given: of the same model, with its layers `as_given`.
        shape: (B, C, H, W) of the images to try it on.
        name: of the model, for messages.
        other: what to do about a model that cannot take the images.
        fix: what to do about one that can, but not in this mode.
        labels_of: the labels to try it on, classes (B,) or probabilities (B, K), for the number of its logits; by
            default 0, 1, ...

    Raises:
        InputError: it cannot take the images, is not the same in every pass, its loss does not work on the labels, it
            has no update that an attack can match, or another one than the model as given.
    """
    images = noise(victim, shape)
    logits = logits_of(victim, images, name, other, fix)
    forget(victim, images.detach())
    labels = labels_of(logits.shape[1]) if labels_of else torch.arange(len(images)) % max(2, logits.shape[1])
    labels = labels.to(images if labels.is_floating_point() else images.device)
    check_loss(victim.criterion, logits, labels)
    small = noise(victim, smallest(victim, shape))
    check_derivative(victim, small, labels, name)
    forget(given, images.detach())
    check_same(victim, given, small, labels, name)
    if (functions := own_functions(logits)) and not is_derivative(victim, small, labels):
        warnings.warn(
            f"{name} has operations with their own backward ({', '.join(functions)}), of which the derivative that an "
            "attack follows is not the true one; their derivative is missing, or meant to be another.",
            Notice,
            stacklevel=2,
        )
    (of_logits,) = torch.autograd.grad(logits.sum(), images, materialize_grads=True)
    seen = of_logits.abs().sum((0, 1)) > 0
    rows, columns = int(seen.any(1).sum()), int(seen.any(0).sum())
    if rows and (rows, columns) != seen.shape:  # with a classifier that starts at zero there are none
        warnings.warn(
            f"{name} sees {rows} of {shape[2]} rows and {columns} of {shape[3]} columns of the images; "
            "its update holds nothing of the others.",
            Notice,
            stacklevel=2,
        )
    return logits.shape[1]


def noise(victim: Victim, shape: Sequence[int]) -> Tensor:
    """Normalized images (B, C, H, W)."""
    pixels = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    return victim.normalize(pixels.to(victim.mean)).requires_grad_()


def logits_of(victim: Victim, images: Tensor, name: str, other: str, fix: str) -> Tensor:
    """The victim's logits (B, K), the same in a second pass.

    Raises:
        InputError: see `trial`.
    """
    with torch.random.fork_rng(devices=[]):
        before = random_states()
        try:
            logits = victim.logits(victim.parameters, images)
        except Exception as error:  # a model may refuse images by any exception
            if 'missing the required "forward"' in str(error):
                held = next((f", such as its {key}" for key, _ in victim.model.named_children()), "")
                raise InputError(f"{name} has no forward; give the network that it trains{held}.") from None
            size = " x ".join(str(side) for side in images.shape[1:])
            raise InputError(f"{name} cannot take {size} images ({said(error)}); {other}.") from None
        drew = random_states() != before
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
            raise InputError(
                f"{name} returns {type_and_shape(logits)}, no logits ({len(images)}, K); {fix}, or write a module "
                "whose forward returns them alone."
            )
        again = victim.logits(victim.parameters, images)
    if drew:
        raise InputError(f"{name} draws random numbers, as dropout does; its gradient cannot be repeated; {fix}.")
    if not torch.allclose(logits, again, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise InputError(
            f"{name} gives other logits for the same images in a second pass: it draws random numbers, or keeps "
            f"something outside of the model; {fix}."
        )
    return logits


def random_states() -> tuple[Any, ...]:
    """The states of all generators that a model may draw from without naming one."""
    of_numpy: Any = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), of_numpy[1].tobytes(), of_numpy[2:]


@torch.no_grad()
def forget(victim: Victim, images: Tensor) -> None:
    """Take out of the layers what earlier passes left there, where the logits of normalized images stay the same.

    Tensors that each pass replaces become those of `images`; lists and dictionaries of tensors become empty. They may
    hold private images, or what was made of weights, which would have no gradient then.
    """
    layers = list(map(vars, victim.model.modules()))
    kept = [(own, name, value) for own in layers for name, value in own.items() if name not in OF_TORCH]
    kept = [(own, name, value) for own, name, value in kept if isinstance(value, Tensor) or holds_tensors(value)]
    if not kept:
        return
    new: list[Any] = []
    hook = victim.model.register_forward_hook(lambda *_: new.extend(own.get(name) for own, name, _ in kept))
    before = victim.logits(victim.parameters, images)
    hook.remove()
    for (own, name, value), left in zip(kept, new, strict=True):
        if isinstance(value, Tensor) and isinstance(left, Tensor) and left is not value:
            own[name] = left.detach()
        elif not isinstance(value, Tensor):
            own[name] = type(value)()
        else:
            continue
        try:
            same = torch.equal(victim.logits(victim.parameters, images), before)
        except Exception:  # as a layer raises that needs it
            same = False
        if not same:
            own[name] = value


def holds_tensors(value: Any) -> bool:
    """Whether it is a list or dictionary with tensors, and none of them is a parameter."""
    if type(value) not in (list, dict):
        return False
    kinds = list(map(type, value.values() if isinstance(value, dict) else value))
    return Tensor in kinds and nn.Parameter not in kinds


def check_derivative(victim: Victim, images: Tensor, labels: Tensor, name: str) -> None:
    """Refuse a victim whose update cannot be computed, or has no derivative in the pixels.

    Raises:
        InputError: says which, and what torch says.
    """
    try:
        update = gradient(victim, images, labels, create_graph=True)
    except Exception as error:  # of the model's own operations too
        if "torch.utils.checkpoint" in str(error):
            raise InputError(
                f"{name} recomputes layers in its backward pass (torch.utils.checkpoint), where the client's weights "
                "are gone; switch checkpointing off, the gradient is the same."
            ) from None
        raise InputError(
            f"the gradient of {name} cannot be computed ({said(error)}); check that its own training step runs."
        ) from None
    if not any(g.any() for g in update.values()):
        raise InputError(f"the gradient of {name} is zero: none of its trained parameters changes the loss.")
    matched = torch.stack([g.square().sum() for g in update.values()]).sum()
    try:
        reached = matched.requires_grad and torch.autograd.grad(matched, images, allow_unused=True)[0] is not None
    except Exception as error:
        raise InputError(
            f"the gradient of {name} cannot be differentiated ({said(error)}); replace that operation by one that "
            "torch differentiates twice."
        ) from None
    if not reached:
        raise InputError(
            f"the gradient of {name} has no derivative in the pixels: detach(), no_grad() or a choice such as argmax "
            "cuts it off; remove that."
        )


def check_same(victim: Victim, given: Victim, images: Tensor, labels: Tensor, name: str) -> None:
    """Refuse a model of which the layers cannot be replaced by those that an attack needs.

    Raises:
        InputError: with them its gradient is another.
    """
    if other := others(victim, given, images, labels):  # or only rounded otherwise, which float64 tells
        a, b = (converted(each, images.device, torch.float64) for each in (victim, given))
        surely = others(a, b, images.double(), labels.double() if labels.is_floating_point() else labels)
        other = other if surely is None else surely
    if other:
        raise InputError(
            f"the gradient of {name} changes where its layers are replaced by equal ones that torch differentiates "
            f"twice ({other[0]}): use what layers return, not what inplace=True wrote, and call each layer by its own "
            "name, not from a list or by its class."
        )


def others(victim: Victim, given: Victim, images: Tensor, labels: Tensor) -> list[str] | None:
    """The parameters of which two victims' gradients differ; None where one of them cannot be computed."""
    try:
        found, expected = (gradient(each, images.detach(), labels) for each in (victim, given))
    except Exception:  # of a model of one type; or as it was given, where a layer writes over what one before has kept
        return None
    coarsest = max(torch.finfo(p.dtype).eps for p in given.model.parameters() if p.is_floating_point())
    close, of_all = max(CLOSE, ROUNDINGS * coarsest), norm(expected)
    far = {key: norm({key: found[key] - g}) for key, g in expected.items()}
    return [key for key, g in expected.items() if far[key] > close * (norm({key: g}) + close * of_all)]


def own_functions(logits: Tensor) -> list[str]:
    """The names of the operations, of those that made the logits, whose backward is written in Python."""
    found: dict[str, None] = {}
    left, seen = [logits.grad_fn], set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, BackwardCFunction):
            found[type(node).__name__.removesuffix("Backward")] = None
        left += [before for before, _ in node.next_functions]
    return list(found)


def is_derivative(victim: Victim, images: Tensor, labels: Tensor) -> bool:
    """Whether what torch gives as derivative of the update's norm is that of finite differences, in float64.

    Torch does not see that a backward has none. True where the victim cannot be computed in float64.
    """
    exact = converted(victim, images.device, torch.float64)
    x = images.detach().double()

    def norm2(x: Tensor, create_graph: bool = False) -> Tensor:
        update = gradient(exact, x, labels, create_graph=create_graph)
        return torch.stack([g.square().sum() for g in update.values()]).sum()

    draws = torch.Generator().manual_seed(0)
    try:
        (followed,) = torch.autograd.grad(norm2(x.requires_grad_(), create_graph=True), x)
        x = x.detach()
        for _ in range(TRIES):
            step = STEP * torch.randn(x.shape, generator=draws, dtype=x.dtype).to(x.device)
            difference = (norm2(x + step) - norm2(x - step)) / 2
            if (difference - (followed * step).sum()).abs() <= CLOSE * STEP * followed.norm():
                return True
    except RuntimeError:
        return True
    return False


def said(error: Exception) -> str:
    """What an exception says, in one line; if it says nothing, the line of code that raised it."""
    text = str(error) or traceback.extract_tb(error.__traceback__)[-1].line
    return shorten(f"{type(error).__name__}: {text}", 160)


def type_and_shape(output: Any) -> str:
    """What somebody's function returned, in words, where it is not what was expected."""
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)}"
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} of {', '.join(map(str, output))}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"
