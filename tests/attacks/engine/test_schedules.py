"""Schedules against torch's own."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR

from attacks.engine.schedules import multistep, warmup_cosine


def rates(make, steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, seen = make(optimizer), []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize("steps", [8, 600, 4801])
def test_multistep(steps):
    expected = rates(lambda o: MultiStepLR(o, [int(steps * k / 8) for k in (3, 5, 7)], gamma=0.1), steps)
    assert [multistep(step, steps) for step in range(steps)] == pytest.approx(expected)


@pytest.mark.parametrize("steps", [60, 600])
def test_warmup_then_half_a_cosine(steps):
    def make(optimizer):
        warm = LinearLR(optimizer, 1 / 50, 1.0, total_iters=49)
        return SequentialLR(optimizer, [warm, CosineAnnealingLR(optimizer, steps - 50)], [50])

    expected = rates(make, steps)
    assert [warmup_cosine(step, steps) for step in range(steps)] == pytest.approx(expected, abs=1e-9)


def test_a_search_that_ends_within_the_warm_up_still_moves():
    assert all(0 < warmup_cosine(step, 10) <= 1 for step in range(10))
