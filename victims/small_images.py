"""The smallest images that a victim takes as it takes those of a task: what is asked of its layers is asked there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from victims.victim import Victim, converted

SIDES = 8, 16, 32, 64, 128
KNOWN: WeakKeyDictionary[Victim, dict[tuple[int, ...], tuple[int, ...]]] = WeakKeyDictionary()
"""What `smallest` found, by victim and shape."""


def smallest(victim: Victim, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of the smallest images on which the victim does the same operations with the same weights; found once.

    Nothing is computed: the victim is called on tensors that have shapes alone. No side may become 1 that is longer in
    images of the given shape, or else a convolution would use a single place of its kernel.

    Args:
        shape: (B, C, H, W) of the task's images.

    Returns:
        (B, C, h, w); the given shape if there are none, or if the victim looks at values.
    """
    known = KNOWN.setdefault(victim, {})
    given = tuple(shape)
    if given not in known:
        known[given] = found_smallest(victim, given)
    return known[given]


def found_smallest(victim: Victim, shape: tuple[int, ...]) -> tuple[int, ...]:
    *first, height, width = shape
    smaller = [(*first, min(side, height), min(side, width)) for side in SIDES if side < max(height, width)]
    try:
        outline = converted(victim, "meta")
        wanted = operations(outline, shape)
    except Exception:  # of the model, or of torch where an operation needs values
        return shape
    for tried in smaller:
        try:
            found = operations(outline, tried)
        except Exception:  # as of a linear layer for images of one size
            continue
        if len(found) == len(wanted) and all(one.like(other) for one, other in zip(found, wanted, strict=True)):
            return tried
    return shape


def operations(outline: Victim, shape: Sequence[int]) -> list["Operation"]:
    """What a victim on the meta device does with images of a shape (B, C, H, W)."""
    images = outline.mean.new_empty(*shape).requires_grad_()
    weights = {id(p): name for name, p in outline.model.named_parameters()}
    with Recorder(weights) as recorder:
        outline.logits({}, images)
    return recorder.operations


@dataclass(frozen=True)
class Operation:
    """One operation of torch.

    Attributes:
        kind: the operation.
        weights: names of the parameters among its inputs.
        numbers: the floats among its arguments, such as the bounds of a clamp; integers are sizes and positions.
        shapes: of its outputs.
    """

    kind: Any
    weights: tuple[str | None, ...]
    numbers: tuple[float, ...]
    shapes: tuple[torch.Size, ...]

    def like(self, larger: "Operation") -> bool:
        """Whether it is the same as one on larger images."""
        if (self.kind, self.weights, self.numbers) != (larger.kind, larger.weights, larger.numbers):
            return False
        pairs = zip(self.shapes, larger.shapes, strict=True)
        return all(len(a) == len(b) and all(m > 1 or m == n for m, n in zip(a, b, strict=True)) for a, b in pairs)


class Recorder(TorchDispatchMode):
    """Records what torch does while the context lasts.

    Args:
        weights: names by `id`.
    """

    def __init__(self, weights: Mapping[int, str]) -> None:
        super().__init__()
        self.weights = weights
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        left = func(*args, **(kwargs or {}))
        given = tree_leaves((args, kwargs))
        used = tuple(self.weights.get(id(each)) for each in given if isinstance(each, Tensor))
        numbers = tuple(each for each in given if isinstance(each, float))
        shapes = tuple(tensor.shape for tensor in tree_leaves(left) if isinstance(tensor, Tensor))
        self.operations.append(Operation(func, used, numbers, shapes))
        return left
