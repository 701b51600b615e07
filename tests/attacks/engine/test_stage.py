import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attacks.engine.schedules import constant, multistep
from attacks.engine.stage import share_out
from victims.errors import InputError


@pytest.mark.parametrize("steps", [8, 100, 4800])
def test_multistep_is_torchs_scheduler_at_the_published_milestones(steps):
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    milestones = [int(steps * eighths / 8) for eighths in (3, 5, 7)]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    for step in range(steps):
        assert multistep(step, steps) == pytest.approx(scheduler.get_last_lr()[0])
        assert constant(step, steps) == 1
        optimizer.step()
        scheduler.step()


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=11), st.integers(1, 50_000))
def test_share_out_sums_exactly_and_keeps_proportions(counts, steps):
    plan = {f"s{k}": count for k, count in enumerate(counts)}
    if steps < len(plan):
        with pytest.raises(InputError, match="stages"):
            share_out(plan, steps)
        return
    shares = share_out(plan, steps)
    assert list(shares) == list(plan)
    assert sum(shares.values()) == steps
    assert min(shares.values()) >= 1
    spare = steps - len(plan)
    for name, count in plan.items():
        assert abs(shares[name] - 1 - spare * count / sum(counts)) < 1


def test_share_out_of_the_methods_default_is_the_default():
    assert share_out({"z": 500, "w": 500}, 1000) == {"z": 500, "w": 500}
