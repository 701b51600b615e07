"""The cost of code by the numbers that torch computes in it, which no clock and no other work disturb."""

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Computed(TorchDispatchMode):
    """Counts the numbers that are computed while the context lasts; a view computes none."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        left = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(left) if isinstance(t, Tensor) and not t.is_meta]
        self.numbers += 0 if func.is_view else sum(t.numel() for t in made)
        return left
