"""The state of a training, beside the file that it will write, so that the same command resumes it."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm import tqdm

from victims.checkpoints import sides, tensors, write
from victims.errors import InputError


class Learner(Protocol):
    """What is trained: the steps it has taken, and its state."""

    done: int

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def steps_left(
    learner: Learner, path: Path, identity: str, *, every: int, total: int | None, more: Callable[[], bool]
) -> Iterator[tqdm]:
    """Go on from the state at `path`, if there is one: the caller takes one step each time, and may use the bar.

    Args:
        every: so many steps the state is saved.
        total: of the steps; None where only `more` knows.
        more: whether there is another step.

    Raises:
        InputError: as `resume`, or the state has more steps than `total`.
    """
    resume(path, identity, learner.state_dict(), learner.load_state_dict)
    if total is not None and learner.done > total:
        raise InputError(f"{path} has {learner.done} steps already; give as many or more, or remove it.")
    with tqdm(total=total, initial=learner.done, desc=f"prior {path.stem}", mininterval=1) as bar:
        while more():
            yield bar
            bar.update()
            if learner.done % every == 0:
                save(path, identity, learner.state_dict())


def save(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Write in one step: a killed training leaves the old state or the new one, never a part."""
    whole = BytesIO()  # on a full disk torch's own writer fails as if it were broken
    torch.save({"identity": identity, **state}, whole)
    write({path: whole.getvalue()})


def resume(path: Path, identity: str, start: Mapping[str, Any], restore: Callable[[Any], None]) -> None:
    """Restore the saved state, if there is one.

    Args:
        start: the state before the first step, whose keys, shapes and types every later one has.
        restore: takes the saved state.

    Raises:
        InputError: the file is the state of another training, or no state.
    """
    if not path.is_file():
        return
    state = tensors(path)
    if isinstance(state, Mapping) and state.get("identity", identity) != identity:
        raise InputError(
            f"{path} is the state of another training ({state['identity']}); remove it, or choose another output."
        )
    try:
        wrong = difference(state, {"identity": identity, **start})
        if not wrong:
            restore(state)
    except Exception as error:  # torch's own checks, such as that of a random generator's state
        wrong = shorten(f"{type(error).__name__}: {error}", 160)
    if wrong:
        raise InputError(f"{path} is not the state of this training: {wrong}; remove it, and the training starts anew.")


def difference(given: Any, start: Any, where: str = "it") -> str:
    """In what a state differs from the one before the first step, besides its numbers; empty if in nothing."""
    if isinstance(start, Mapping):
        if not isinstance(given, Mapping):
            return f"{where} is a {type(given).__name__}, not a dict"
        if given.keys() != start.keys():
            odd = ", ".join(sorted(map(repr, given.keys() ^ start.keys()))[:3])
            return f"{where} has other keys ({odd})"
        within = "" if where == "it" else f"{where}."
        return next(filter(None, (difference(given[key], start[key], f"{within}{key}") for key in start)), "")
    if type(given) is not type(start):
        return f"{where} is a {type(given).__name__}, not a {type(start).__name__}"
    if isinstance(start, Tensor):
        if (given.shape, given.dtype) != (start.shape, start.dtype):
            return f"{where} is {sides(given)} ({given.dtype}), not {sides(start)} ({start.dtype})"
        if not given.isfinite().all():
            return f"{where} has NaN or infinite numbers"
    elif isinstance(start, int) and given < 0:
        return f"{where} is {given}"
    return ""


def moments(optimizer: Optimizer) -> dict[int, dict[str, Tensor]]:
    """What an optimizer keeps of its steps, by parameter. Before the first one that is zeros, from which it starts."""
    if not optimizer.state:
        optimizer = deepcopy(optimizer)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for kept in optimizer.state.values():
            for tensor in kept.values():
                tensor.zero_()
    return optimizer.state_dict()["state"]


def restore(optimizer: Optimizer, kept: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Give it its `moments` back; its options are those it was made with."""
    optimizer.load_state_dict({**optimizer.state_dict(), "state": kept})
