import pytest

from leaderboard.curves import MOST, joined


def write(path, costs, stages=None):
    lines = [f"{i},{(stages or ['x'] * len(costs))[i]},{cost}" for i, cost in enumerate(costs)]
    path.write_text("\r\n".join(["step,stage,cost", *lines]) + "\r\n")
    return path


def test_quartiles_over_tasks_by_hand(tmp_path):
    paths = [write(tmp_path / f"{i}.csv", [cost, cost / 10], ["z", "w"]) for i, cost in enumerate((10, 20, 30, 40, 50))]
    curve, warning_lines = joined(paths)
    assert warning_lines == []
    assert curve["median"] == pytest.approx([30, 3])
    assert (curve["low"], curve["high"]) == (pytest.approx([20, 2]), pytest.approx([40, 4]))
    assert (curve["stages"], curve["length"], curve["tasks"]) == ([[0, "z"], [1, "w"]], 2, 5)


def test_a_long_curve_is_thinned_and_keeps_its_ends(tmp_path):
    curve, _ = joined([write(tmp_path / "long.csv", list(range(5001)))])
    assert len(curve["steps"]) == len(curve["median"]) == MOST
    assert (curve["steps"][0], curve["steps"][-1], curve["median"][-1]) == (0, 5000, 5000)
    assert curve["median"] == curve["steps"]  # every shown cost is that of its own step


def test_what_is_not_finite_is_left_out(tmp_path):
    paths = [write(tmp_path / "a.csv", [1, "nan", "inf"]), write(tmp_path / "b.csv", [3, 5, "nan"])]
    assert joined(paths)[0]["median"] == [2, 5, None]


@pytest.mark.parametrize("text", ["", "step,stage,cost\n0,x", "step,stage,cost\n0,x,abc\n", "\0\x01"])
def test_a_torn_curve_is_named_and_the_others_stay(tmp_path, text):
    whole, torn = write(tmp_path / "whole.csv", [4, 2]), tmp_path / "torn.csv"
    torn.write_text(text)
    curve, warning_lines = joined([whole, torn, tmp_path / "absent.csv"])
    assert curve["median"] == [4, 2]
    assert len(warning_lines) == 1
    assert "torn.csv" in warning_lines[0]


def test_a_cut_curve_is_named_and_the_others_stay(tmp_path):
    paths = [write(tmp_path / f"{i}.csv", [4, 2, 1][: 3 - (i == 1)]) for i in range(3)]
    curve, (warning,) = joined(paths)
    assert (curve["length"], curve["tasks"]) == (3, 2)
    assert "1.csv" in warning


def test_no_curve_at_all(tmp_path):
    assert joined([tmp_path / "absent.csv"]) == (None, [])
