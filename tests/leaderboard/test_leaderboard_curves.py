import pytest

from leaderboard.curves import MOST, over_tasks
from leaderboard.run_folder import RunFolder


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def write(run, task, costs, stages=None):
    run.write_curve(task, stages or ["x"] * len(costs), costs)
    return run, task


def test_quartiles_over_tasks_by_hand(run):
    tasks = [write(run, f"t{i}", [cost, cost / 10], ["z", "w"]) for i, cost in enumerate((10, 20, 30, 40, 50))]
    curve, warnings = over_tasks(tasks)
    assert warnings == []
    assert curve["median"] == pytest.approx([30, 3])
    assert (curve["low"], curve["high"]) == (pytest.approx([20, 2]), pytest.approx([40, 4]))
    assert (curve["stages"], curve["length"], curve["tasks"]) == ([[0, "z"], [1, "w"]], 2, 5)


def test_a_long_curve_is_thinned_and_keeps_its_ends(run):
    curve, _ = over_tasks([write(run, "long", list(range(5001)))])
    assert len(curve["steps"]) == len(curve["median"]) == MOST
    assert (curve["steps"][0], curve["steps"][-1], curve["median"][-1]) == (0, 5000, 5000)
    assert curve["median"] == curve["steps"]  # every shown cost is that of its own step


def test_what_is_not_finite_is_left_out(run):
    tasks = [write(run, "a", [1, "nan", "inf"]), write(run, "b", [3, 5, "nan"])]
    assert over_tasks(tasks)[0]["median"] == [2, 5, None]


@pytest.mark.parametrize("text", ["", "step,stage,cost\n0,x", "step,stage,cost\n0,x,abc\n", "\0\x01"])
def test_a_torn_curve_is_named_and_the_others_stay(run, text):
    whole, torn = write(run, "whole", [4, 2]), write(run, "torn", [1])
    run.curve_file("torn").write_text(text)
    curve, warnings = over_tasks([whole, torn, (run, "absent")])
    assert curve["median"] == [4, 2]
    assert len(warnings) == 1
    assert "torn.csv" in warnings[0]


def test_a_cut_curve_is_named_and_the_others_stay(run):
    curve, (warning,) = over_tasks([write(run, str(i), [4, 2, 1][: 3 - (i == 1)]) for i in range(3)])
    assert (curve["length"], curve["tasks"]) == (3, 2)
    assert "1.csv" in warning


def test_no_curve_at_all(run):
    assert over_tasks([(run, "absent")]) == (None, [])
