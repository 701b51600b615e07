"""Digests of what objects hold: a constructor may read files, which change while the code stays the same."""

import hashlib
from argparse import Namespace
from collections import deque
from collections.abc import Collection, Mapping
from functools import partial
from sys import stdlib_module_names
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from victims.wrappers import OF_TORCH

WEIGHTS = {"_parameters", "_buffers", "_modules"}
"""Attributes of a module that are torch's own, and hold what it is made of."""


def of_state(held: object, without: Collection[str] = ()) -> str:
    """A digest of the numbers, texts, arrays and tensors in the attributes of an object, and in those of what it holds.

    Texts with a slash do not count: they are places of files, which differ between machines. Of functions, and of most
    of Python's own objects, only the name or type counts.

    Args:
        without: attributes of the object itself that do not count.
    """
    found = hashlib.sha256()
    seen: dict[int, object] = {}  # the objects too, so that no other one gets the same id
    left: list[tuple[str, object]] = [("", held)]
    while left:
        path, value = left.pop()
        found.update(f"{path} {described(value)}\n".encode(errors="surrogatepass"))
        if id(value) not in seen:
            seen[id(value)] = value
            parts = sorted(parts_of(value).items())
            left += [(f"{path}.{name}", part) for name, part in parts if path or name not in without]
    return found.hexdigest()[:16]


def described(value: object) -> str:
    """What a value is, without its parts; the same in every process."""
    if isinstance(value, Tensor):
        try:
            return of_tensors({"": value})
        except (RuntimeError, TypeError):  # it has no values, or none that numpy holds
            return f"{value.dtype} {tuple(value.shape)}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    plain = value is None or isinstance(value, bool | int | float | complex | bytes | np.generic)
    if plain or (isinstance(value, str) and not {"/", "\\"} & set(value)):
        return repr(value)
    if isinstance(value, set | frozenset):
        return repr(sorted(map(described, value)))
    kind: Any = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def parts_of(value: Any) -> Mapping[str, object]:
    """What a value holds, by names that are the same in every process."""
    if isinstance(value, Mapping):
        return {described(key): part for key, part in value.items()}
    if isinstance(value, list | tuple | deque):
        return {f"{place:09}": part for place, part in enumerate(value)}
    if isinstance(value, partial):
        return {"args": value.args, "keywords": value.keywords}
    if isinstance(value, nn.Module):
        return {name: part for name, part in vars(value).items() if name not in OF_TORCH or name in WEIGHTS}
    of_python = type(value).__module__.partition(".")[0] in stdlib_module_names
    if of_python and not isinstance(value, Namespace | SimpleNamespace):
        return {}
    return {} if isinstance(value, Tensor | RemovableHandle | type) else getattr(value, "__dict__", {})


def of_tensors(state: Mapping[str, object]) -> str:
    """A digest of the tensors of a state, at most in single precision."""
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if isinstance(tensor, Tensor) and not is_lazy(tensor):
            plain = tensor.detach().cpu()
            plain = plain.float() if plain.is_floating_point() else plain
            found.update(f"{name} {tuple(plain.shape)}".encode())
            found.update(plain.contiguous().reshape(-1).numpy().data)
    return found.hexdigest()[:16]
