"""The table of label methods: means by victim and size of batch, with intervals over batches that share no image."""

from statistics import fmean, stdev

import pytest
from scipy.stats import t

from leaderboard.labels_board import table


def rows(method, victim, values, clusters=None):
    names = clusters or [str(number) for number in range(len(values))]
    return [
        {"label_method": method, "victim": victim, "batch_size": 4, "cluster": name, "counts": value, "existence": 1.0}
        for value, name in zip(values, names, strict=True)
    ]


VALUES = [0.25, 0.5, 0.5, 0.75, 0.5]


def test_a_cell_is_the_mean_and_student_s_interval():
    (cell,) = table(rows("zlr", "lenet", VALUES)).columns["B = 4"]
    mean, half = fmean(VALUES), t.ppf(0.975, 4) * stdev(VALUES) / 5**0.5
    assert cell == f"{mean:#.4g} [{mean - half:#.3g}, {mean + half:#.3g}]"


def test_a_column_for_each_victim_and_a_dash_where_a_method_has_no_row():
    both = [*rows("alr", "lenet", VALUES), *rows("zlr", "convnet", VALUES)]
    found = table(both, methods=["idlg"]).columns
    assert found["method"] == ["idlg", "alr", "zlr"]
    assert [cell == "-" for cell in found["lenet, B = 4"]] == [True, False, True]
    assert [cell == "-" for cell in found["convnet, B = 4"]] == [True, True, False]


def test_batches_that_share_images_count_as_one():
    (cell,) = table(rows("zlr", "lenet", VALUES, list("aaaaa"))).columns["B = 4"]
    assert cell == "0.5000 [-]"


@pytest.mark.parametrize("score", ["counts", "existence"])
def test_each_score_has_its_own_table(score):
    found = table(rows("zlr", "lenet", [0.5] * 5), score)
    assert found.columns["B = 4"][0].startswith("0.5" if score == "counts" else "1.000")
    assert found.above.startswith("Labels recovered" if score == "counts" else "Classes recovered")
