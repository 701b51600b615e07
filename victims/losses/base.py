"""What every loss provides, and the trial of a loss before it is used."""

from collections.abc import Callable
from functools import reduce
from operator import add
from textwrap import shorten
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from victims.errors import InputError
from victims.wrappers import attributes_kept

Function = Callable[[Tensor, Tensor], Tensor]
"""Logits (B, K) and targets, classes (B,) or probabilities (B, K) -> the mean loss, ()."""

FLAT = "its gradient is zero"


class Loss(nn.Module):
    """The mean loss of a batch; a subclass defines `forward`, a `Function`.

    Class attributes:
        examples: uses of it as LOSS= takes them; the contract tests run them.
        signs: for a class k as target, only the derivative in logit k is negative. Some label methods need that.

    Attributes:
        smoothing: eps, if the derivative in the logits is softmax - t with t = (1 - eps) one_hot + eps / K; None if it
            has another form. The label methods that count need that.
    """

    examples: ClassVar[tuple[str, ...]] = ()
    signs: ClassVar[bool] = False
    smoothing: float | None = None


class Own(Loss):
    """A function or module of the user's own, of which nothing else is known."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.function(logits, targets)


def as_loss(function: Function) -> Loss:
    return function if isinstance(function, Loss) else Own(function)


def probabilities(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets as probabilities (B, K) in the type of the logits (B, K); of one logit, that of an odd class."""
    if logits.shape[-1] == 1:
        odd = targets[..., 1::2].sum(-1) if targets.is_floating_point() else targets % 2
        return odd[:, None].to(logits)
    if targets.is_floating_point():
        return targets.to(logits)
    return (targets[:, None] == torch.arange(logits.shape[-1], device=logits.device)).to(logits)


def classification_loss(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of logits (B, K), or of (B, T, K) of T rounds' models, whose losses are added.

    As a victim's model it is called on copies of its buffers: what it counts or averages begins anew in every call. It
    may write into what it is given.
    """
    if logits.ndim == 3:
        return reduce(add, (classification_loss(loss, of_round, labels) for of_round in logits.unbind(1)))
    buffers = {name: buffer.clone() for name, buffer in loss.named_buffers()}
    with attributes_kept(loss):
        return functional_call(loss, buffers, (logits.clone(), labels.clone()))


def check_loss(loss: Loss, logits: Tensor, targets: Tensor) -> None:
    """Try a loss on the targets of a batch.

    Args:
        logits: (B, K), or (B, T, K) of several rounds. A loss may have no gradient there, as where a margin is kept:
            then it is tried on drawn ones too. Only there, for it may take no others, such as none outside [0, 1].
        targets: (B,) classes, or (B, K) probabilities.

    Raises:
        InputError: it does not work on them, its value is no number, or nothing can be learned from it.
    """
    fault = fault_of(loss, logits, targets)
    if fault == FLAT:
        drawn = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)
        fault = fault_of(loss, drawn, targets)
    if fault:
        kind = "probabilities" if targets.is_floating_point() else "classes"
        raise InputError(
            f"the loss {loss_name(loss)} cannot be used on {logits.shape[-1]} logits with {kind} as labels ({fault}); "
            "choose another, such as cross_entropy."
        )


def fault_of(loss: Loss, logits: Tensor, targets: Tensor) -> str:
    """What is wrong with a loss at these logits; empty where nothing is."""
    at = logits.detach().clone().requires_grad_()
    try:
        value: Any = classification_loss(loss, at, targets)
        if isinstance(value, Tensor) and value.shape == () and value.requires_grad:
            (gradient,) = torch.autograd.grad(value, at, create_graph=True)
            if gradient.requires_grad:  # raises where it cannot be differentiated twice
                torch.autograd.grad(gradient.square().sum(), at, allow_unused=True)
            if leaves(value) - {id(at), *map(id, loss.parameters())}:
                return "it has a gradient in weights that it keeps, which no update would have; freeze them"
            if not torch.allclose(value, classification_loss(loss, at, targets), rtol=1e-4, equal_nan=True):
                return "it gives another value in a second call"
            return "" if gradient.any() else FLAT
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        return f"it gives {shape}, no differentiable mean ()"
    except InputError:
        raise
    except Exception as error:  # a loss may refuse by any exception
        return shorten(f"{type(error).__name__}: {error}", 160)


def leaves(value: Tensor) -> set[int]:
    """The tensors that a value has a gradient in, by `id`."""
    ends: set[int] = set()
    seen: set[Any] = set()
    left: list[Any] = [value.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "AccumulateGrad":
            ends.add(id(node.variable))
        left += [before for before, _ in node.next_functions]
    return ends


def loss_name(loss: Loss) -> str:
    """The name by which LOSS= knows it, or that of the user's function or module."""
    if isinstance(loss, Own):
        return getattr(loss.function, "__name__", type(loss.function).__name__)
    return type(loss).__module__.rpartition(".")[2]
