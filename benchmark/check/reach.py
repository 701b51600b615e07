"""What can be reached from an object: the private images must not."""

import gc
import inspect
import types
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from victims.victim import Victim


def reachable(*roots: Any) -> list[Tensor]:
    """Every tensor that can be reached from `roots` through attributes, containers and closures.

    Not followed: modules, classes and a function's globals (code, which reaches the whole program), and
    Lightning's reference from the attack back to its Trainer.
    """
    seen: dict[int, Any] = {}
    queue: list[Any] = list(roots)
    while queue:
        item = queue.pop()
        if id(item) in seen or isinstance(item, types.ModuleType | type | Trainer | str | int | float | None):
            continue
        seen[id(item)] = item
        if isinstance(item, types.FunctionType):
            queue += [cell.cell_contents for cell in item.__closure__ or ()] + list(item.__defaults__ or ())
        elif isinstance(item, types.GeneratorType):
            queue += list(inspect.getgeneratorlocals(item).values())
        else:
            queue += gc.get_referents(item)
            queue += list(vars(item).values()) if hasattr(item, "__dict__") else []
    return [item for item in seen.values() if isinstance(item, Tensor)]


def holds(tensors: list[Tensor], images: Tensor, victim: Victim) -> bool:
    """Whether any tensor is, contains or shares memory with one of the images, plain or normalized."""
    secrets = [*images, *victim.normalize(images)]
    memory = {image.untyped_storage().data_ptr() for image in (images, *images)}
    for tensor in tensors:
        if tensor.numel() and tensor.untyped_storage().data_ptr() in memory:
            return True
        if tensor.is_floating_point() and tensor.shape[-3:] == images.shape[-3:]:
            for image in tensor.detach().reshape(-1, *images.shape[-3:]):
                if any(torch.allclose(image, secret.to(image), atol=1e-3) for secret in secrets):
                    return True
    return False
