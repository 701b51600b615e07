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
        if not self.leads_to_copied(value):
            return value  # what the caller's functions write into, such as a list of theirs, stays theirs
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
        closure, moved = f.__closure__ or (), []
        for cell in closure:
            if id(cell) not in self.copies and self.leads_to_copied(contents(cell)):
                self.copies[id(cell)] = CellType()
                moved.append(cell)
        cells = tuple(self.copies.get(id(cell), cell) for cell in closure)
        new = FunctionType(f.__code__, f.__globals__, f.__name__, None, cells)
        self.copies[id(f)] = new  # before its variables: it may call itself
        for cell in moved:
            self.copies[id(cell)].cell_contents = self(cell.cell_contents)
        new.__defaults__ = f.__defaults__ and tuple(map(self, f.__defaults__))
        new.__kwdefaults__ = f.__kwdefaults__ and {key: self(value) for key, value in f.__kwdefaults__.items()}
        vars(new).update({key: self(value) for key, value in vars(f).items()})
        for name in COPIED:
            setattr(new, name, getattr(f, name))
        return new

    def leads_to_copied(self, value: Any) -> bool:
        """Whether there is a way from a value to something that was copied."""
        left, seen = [value], set()
        while left:
            each = left.pop()
            if id(each) in self.copies:
                return True
            if id(each) not in seen:
                seen.add(id(each))
                left += held_by(each)
        return False


def held_by(value: Any) -> list[Any]:
    """What `Follow` looks into."""
    if isinstance(value, FunctionType):
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        return [*map(contents, value.__closure__ or ()), *defaults, *vars(value).values()]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, weakref.ref):
        return [value()]
    if type(value) is partial:
        return [value.func, *value.args, *value.keywords.values()]
    if type(value) in (dict, OrderedDict):
        return [*value.keys(), *value.values()]
    return [*value] if type(value) in (tuple, list, set) else []


def contents(cell: CellType) -> Any:
    """What a variable has; None where nothing is assigned yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
