"""What a copied model's functions work on. That its update is right is tested where models are given."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from victims.wrappers import copied


class Holds(nn.Module):
    def __init__(self, **held) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        vars(self).update(held)


def test_functions_of_nothing_that_is_copied_stay_the_same_objects():
    assert copied(Holds(act=F.relu)).act is F.relu
    model = Holds()
    model.act = partial(F.elu, alpha=2.0)
    assert copied(model).act.func is F.elu


def test_lists_that_hold_themselves_and_functions_that_call_themselves_are_followed():
    model = Holds()
    loop = [model.fc]
    loop.append(loop)

    def down(n):
        return loop[0] if n == 0 else down(n - 1)

    model.loop, model.down, model.both = loop, down, (down, loop)
    made = copied(model)
    assert made.loop[0] is made.fc
    assert made.loop[1] is made.loop
    assert made.down(3) is made.both[0](0) is made.fc
    assert model.down(3) is model.fc


def test_a_variable_that_functions_share_is_shared_by_their_copies():
    model, count = Holds(), 0

    def more():
        nonlocal count
        count += 1

    model.more, model.read = more, lambda: (count, model.fc)
    made = copied(copied(model))
    made.more()
    assert made.read() == (1, made.fc)
    assert model.read() == (1, model.fc), "what holds nothing of the model stays the caller's"


def test_what_a_function_writes_into_stays_the_callers():
    model, seen = Holds(), []
    model.write = lambda value: seen.append((value, model.fc))
    made = copied(model)
    made.write(1)
    assert seen == [(1, made.fc)]


def test_a_function_keeps_its_attributes_and_annotations():
    model = Holds()

    def f(x: float, *, layer: nn.Module = model.fc) -> torch.Tensor:
        """Words."""
        return layer(torch.tensor([x, x]))

    f.scale, f.layers = 2, {"fc": model.fc}
    model.f = f
    made = copied(model)
    assert (made.f.scale, made.f.__doc__, made.f.__annotations__) == (2, "Words.", f.__annotations__)
    assert made.f.layers["fc"] is made.f.__kwdefaults__["layer"] is made.fc
    assert torch.equal(made.f(1.0), made.fc(torch.ones(2)))
