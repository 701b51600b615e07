"""Functions in a copied model: a deep copy leaves them as they are, so that they go on to work on the original."""

import weakref
from collections import OrderedDict
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

COPIED = ("__module__", "__qualname__", "__doc__", "__annotations__")  # of a function, beside its code


class Follow:
    """Takes what belongs to an original to what belongs to its copy: functions with what they have in their closures,
    defaults and attributes, bound methods, partials, weak references, and containers of these.

    Args:
        copies: by the `id` of the original, as `deepcopy` has left them; the originals must live on. More are added.
    """

    def __init__(self, copies: dict[int, Any]) -> None:
        self.copies = copies
        self.done: set[int] = set()

    def inside(self, held: Any) -> None:
        """Replace what a dictionary or list of the copy holds, in place."""
        if id(held) in self.done:  # one may hold itself
            return
        self.done.add(id(held))
        for key, value in list(held.items() if isinstance(held, dict) else enumerate(held)):
            if type(value) in (dict, list, OrderedDict):
                self.inside(value)
            elif (new := self(value)) is not value:
                held[key] = new

    def __call__(self, value: Any) -> Any:
        if id(value) in self.copies:
            return self.copies[id(value)]
        if isinstance(value, FunctionType):
            return self.function(value)
        if isinstance(value, MethodType):
            return MethodType(self(value.__func__), self(value.__self__))
        if isinstance(value, weakref.ref):
            made = self.copies.get(id(value()))
            return value if made is None else weakref.ref(made)
        if type(value) is partial:
            return partial(self(value.func), *map(self, value.args), **{k: self(v) for k, v in value.keywords.items()})
        if type(value) is tuple:
            return tuple(map(self, value))
        if type(value) in (list, set):
            new = self.copies[id(value)] = type(value)()
            (new.extend if isinstance(new, list) else new.update)([*map(self, value)])
            return new
        if type(value) in (dict, OrderedDict):
            new = self.copies[id(value)] = type(value)()
            new.update({self(key): self(each) for key, each in value.items()})
            return new
        return value

    def function(self, f: FunctionType) -> FunctionType:
        """The same code, on the copy. Functions that share a variable go on to share one."""
        closure = f.__closure__ or ()
        held = [*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values(), *vars(f).values()]
        if not closure and all(self(value) is value for value in held):
            return f
        empty = [cell for cell in closure if id(cell) not in self.copies]
        self.copies |= {id(cell): CellType() for cell in empty}
        cells = tuple(self.copies[id(cell)] for cell in closure)
        new = FunctionType(f.__code__, f.__globals__, f.__name__, None, cells)
        self.copies[id(f)] = new  # before its variables: it may call itself
        for cell in empty:
            try:
                contents = cell.cell_contents
            except ValueError:  # nothing is assigned yet
                continue
            self.copies[id(cell)].cell_contents = self(contents)
        new.__defaults__ = f.__defaults__ and tuple(map(self, f.__defaults__))
        new.__kwdefaults__ = f.__kwdefaults__ and {key: self(value) for key, value in f.__kwdefaults__.items()}
        vars(new).update({key: self(value) for key, value in vars(f).items()})
        for name in COPIED:
            setattr(new, name, getattr(f, name))
        return new
