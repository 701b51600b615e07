"""The state of one run: what is kept as the best, and what a new session shares with the one before."""

from functools import partial

import pytest
import torch

from attacks.engine.optimizers import CMAES
from attacks.engine.session import Best, least
from attacks.engine.stage import Stage
from attacks.ig import IG

NAN, INF = torch.nan, torch.inf


def test_the_best_has_the_tensors_of_least_cost_and_no_nan():
    best = Best(torch.zeros(3), {"x": torch.zeros(3, 2)})
    for step, costs in enumerate([[3.0, NAN, 1.0], [2.0, NAN, 4.0], [5.0, NAN, 1.0]], start=1):
        best.update(torch.tensor(costs), {"x": torch.full((3, 2), float(step))})
    assert best.cost.tolist() == [2, INF, 1]
    assert best.tensors["x"].tolist() == [[2, 2], [0, 0], [1, 1]]  # of equal costs the first
    best.forget()
    best.update(torch.tensor([9.0, 9, NAN]), {"x": torch.full((3, 2), 7.0)})
    assert best.tensors["x"].tolist() == [[7, 7], [7, 7], [1, 1]]


def test_winners_are_chosen_within_each_task():
    best = Best(torch.zeros(6), {"x": torch.zeros(6)})
    best.update(torch.tensor([3.0, 1, 2, 5, NAN, 4]), {"x": torch.arange(6.0)})
    assert best.winners(3).tolist() == [1, 5]
    best.select(best.winners(3))
    assert (best.cost.tolist(), best.tensors["x"].tolist()) == ([1, 4], [1, 5])


def test_least_is_over_restarts_and_infinite_if_none_is_a_number():
    costs = torch.tensor([[3.0, NAN, 2], [NAN, NAN, NAN], [INF, INF, INF], [NAN, INF, 2]])
    assert least(costs).tolist() == [2, INF, INF, 2]


def test_the_curve_is_computed_for_all_steps_of_a_stage_at_once(capture):
    """Also where fewer restarts go on after a stage; a GPU starts operations one after another."""
    attack = IG(steps=1, restarts=3)
    attack.run([capture(size=16).observation])
    costs = [("z", torch.rand(2, 3)) for _ in range(50)] + [("x", torch.rand(2, 1)) for _ in range(60)]
    costs[7][1][0] = NAN
    attack.session.costs = costs
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        curve = attack.session.curve()
    assert {event.key: event.count for event in profile.key_averages()}["aten::amin"] == 2
    assert [stage for stage, _ in curve] == [stage for stage, _ in costs]
    assert curve[7][1][0] == INF
    for (_, found), (_, given) in zip(curve, costs, strict=True):
        assert torch.equal(found, least(given))


def test_sessions_share_the_paths_of_a_victim_and_nothing_else(capture):
    task = capture(size=16)
    others = [capture((8, 30, 77), size=16, task="u", victim=task.observation.victim), capture(size=16)]
    attack = IG(steps=3, restarts=2)
    attack.run([task.observation])
    first, paths = attack.session, attack.paths
    attack.begin([others[0].observation])
    assert attack.paths is paths
    assert attack.session is not first
    assert not attack.session.costs
    attack.begin([others[1].observation])  # an equal victim, but another one
    assert attack.paths is not paths


def test_a_session_that_has_ended_keeps_only_its_result(capture):
    attack = IG(steps=2, restarts=1)
    attack.run([capture(size=16).observation])
    assert attack.session.variables == {}
    assert not hasattr(attack.session, "_optimizer")
    assert torch.equal(attack.result().images, attack.result().images)


class Halves(IG):
    """Two numbers by an objective of their own, then the image that is gray to their mean."""

    def __init__(self, free: bool = False, **common):
        super().__init__(**common)
        self.plan, self.free = {"n": 4, "x": 1}, free

    def search(self):
        start = self.normal((2,))
        cmaes = partial(CMAES, population=4, seeds=self.seeds())
        found = yield Stage(
            name="n",
            variables={"n": start},
            objective=lambda v: (v["n"] - 3).square().sum(1) - 100,  # far below any matching cost
            lr=0.1,
            **({"optimizer": cmaes, "population": 4} if self.free else {}),
        )
        assert set(found) == {"n"}
        self.ends = [start, found["n"]]
        images = self.noise().mul(0) + found["n"].mean(1)[:, None, None, None, None]
        yield Stage(name="x", variables={"x": images}, lr=0.0)


@pytest.mark.parametrize("free", [False, True])
def test_a_stage_with_its_own_objective_hands_its_best_on_and_is_not_judged(capture, free):
    attack = Halves(free, restarts=2)
    result = attack.run([capture(size=16).observation, capture((8, 30, 77), size=16, task="u").observation])
    start, best = attack.ends
    values = torch.stack([cost for stage, cost in result.curve if stage == "n"])
    assert [stage for stage, _ in result.curve] == ["n"] * 4 + ["x"]
    assert (values < 0).all()
    torch.testing.assert_close(values.amin(0), ((best - 3).square().sum(1) - 100).unflatten(0, (2, 2)).amin(1))
    assert ((best - 3).square().sum(1) < (start - 3).square().sum(1)).all()
    assert torch.equal(result.cost, result.curve[-1][1])
    assert result.gradient_evaluations == 2, "one of each restart, of the last stage"
    torch.testing.assert_close(result.images[:, 0, 0, 0, 0], best.mean(1)[attack.session.winners()])
    assert result.labels.shape == (2, 3)
