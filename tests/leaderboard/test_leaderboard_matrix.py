"""Attacks by defenses: the place of every score, the marks, the gain from adapting, and the picture."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from leaderboard import matrix as module
from leaderboard.matrix import draw, matrices, write
from leaderboard.statistics import clustered_interval

PSNR = {  # by attack, defense and whether it adapts: of batches t0 and t1
    ("ig", "none", False): (20, 22),
    ("gias", "none", False): (23, 27),
    ("ig", "topk:0.9", True): (14, 18),
    ("ig", "topk:0.9", False): (13, 15),
    ("gias", "topk:0.9", True): (12, 13),
    ("ig", "clip:1", True): (19, 20),
}


@pytest.fixture
def crossed(row):
    return [
        row(attack=attack, defense=defense, adapt=adapt, task=task, image=task, psnr=psnr, ssim=psnr / 100)
        for (attack, defense, adapt), values in PSNR.items()
        for task, psnr in zip(("t0", "t1"), values, strict=True)
    ]


def test_every_score_is_at_its_attack_and_defense(crossed):
    (matrix,) = matrices(crossed)
    assert matrix.defenses == ("none", "topk:0.9", "clip:1")  # as they come, none first
    means = {name: {defense: score.mean for defense, score in line.items()} for name, line in matrix.lines.items()}
    assert means == {
        "gias, adaptive": {"none": 25, "topk:0.9": 12.5},
        "ig, adaptive": {"none": 21, "topk:0.9": 16, "clip:1": 19.5},
        "ig, non-adaptive": {"none": 21, "topk:0.9": 14},
    }
    assert next(iter(means)) == "gias, adaptive"  # the best in the first column
    score = matrix.lines["ig, adaptive"]["topk:0.9"]
    assert score == clustered_interval([14, 18], ["t0", "t1"], (0, 100))._replace(batches=2)


def test_each_version_of_a_defense_has_a_column(crossed, row):
    """Its code changed between two runs: neither hides the other."""
    again = [
        row(attack="ig", defense="clip:1", adapt=True, task=t, psnr=30, defense_digest="new") for t in ("t0", "t1")
    ]
    old = [{**each, "defense_digest": "old"} if each["defense"] == "clip:1" else each for each in crossed]
    (matrix,) = matrices([*old, *again])
    assert matrix.defenses[:2] == ("none", "topk:0.9")
    found = {name: matrix.lines["ig, adaptive"][name].mean for name in matrix.defenses[2:]}
    assert found == {"clip:1 old": 19.5, "clip:1 new": 30}


def test_what_adapting_gains_is_paired_over_the_same_images(crossed, row):
    alone = row(attack="ig", defense="topk:0.9", adapt=True, task="t2", psnr=99)
    (matrix,) = matrices([*crossed, alone])
    ((attack, line),) = matrix.gains.items()
    assert (attack, line.keys()) == ("ig", {"topk:0.9"})
    assert (line["topk:0.9"].mean, line["topk:0.9"].n) == (2, 2)  # 14 - 13 and 18 - 15; t2 was not run without adapting
    assert matrix.lines["ig, adaptive"]["topk:0.9"].n == 3


def test_what_adapting_gains_on_several_defenses_is_corrected_for_their_number(row):
    """On the first defense the p-value is .03, which is a verdict if it is the only comparison."""
    gains = {"clip": (-0.2, 1, 2, 2, 2.2), "topk:0.9": (-1, 1, 0, 0.5, -0.5)}
    assert 0.025 < clustered_interval(gains["clip"], range(5)).p < 0.05

    def verdicts(*defenses):
        adaptive = [(d, True, i, 15 + gain) for d in defenses for i, gain in enumerate(gains[d])]
        others = [(d, False, i, 15) for d in ("none", *defenses) for i in range(5)]
        keys = ("defense", "adapt", "task", "psnr")
        rows = [row(**dict(zip(keys, values, strict=True)), image=values[2]) for values in (*adaptive, *others)]
        table = matrices([each | {"task": f"t{each['task']}", "image": f"i{each['image']}"} for each in rows])[
            0
        ].tables()[1]
        return table.above, [column[0].split("] ")[1] for column in list(table.columns.values())[1:]]

    alone, words = verdicts("clip")
    assert words == ["better"]
    assert "Holm" not in alone
    both, words = verdicts("clip", "topk:0.9")
    assert words == ["no difference shown", "no difference shown"]
    assert "Holm's correction for 2 comparisons" in both


def test_the_best_attack_of_a_column_is_never_a_control(crossed, row):
    strong = row(attack="ig", control="shuffled_update", defense="topk:0.9", adapt=True, psnr=50)
    mean = row(attack="ig", control="mean_image", defense="none", psnr=60)
    (matrix,) = matrices([*crossed, strong, mean])
    assert matrix.controls == {"ig, shuffled update (control), adaptive", "mean image (control)"}
    assert set(list(matrix.lines)[-2:]) == matrix.controls
    assert {d: matrix.best(d) for d in matrix.defenses} == {"none": 25, "topk:0.9": 16, "clip:1": 19.5}
    assert {score.mean for score in matrix.lines["mean image (control)"].values()} == {60}  # under every defense
    table = matrix.tables()[0]
    assert [cell.endswith("(best)") for cell in table.columns["none"]] == [True, False, False, False, False]
    assert [name for name, cell in zip(table.columns["attack"], table.columns["topk:0.9"], strict=True)
            if cell.endswith("(best)")] == ["ig, adaptive"]  # fmt: skip


def test_the_smallest_distance_is_the_best(crossed):
    for line in crossed:
        line["lpips"] = line["psnr"] / 100
    (matrix,) = matrices(crossed, "lpips")
    assert [matrix.best(defense) for defense in matrix.defenses] == pytest.approx([0.21, 0.125, 0.195])
    assert list(matrix.lines)[-1] == "gias, adaptive"


def test_a_metric_without_any_value_makes_no_matrix(crossed):
    assert matrices([dict(line, lpips=None) for line in crossed], "lpips") == []


def test_one_defense_makes_no_matrix_and_every_setting_its_own(crossed, row):
    assert matrices([line for line in crossed if line["defense"] == "none"]) == []
    alone = [dict(line, victim="lenet") for line in crossed if line["defense"] == "none"]
    assert len(matrices([*crossed, *alone])) == 1
    both = matrices([*crossed, *[dict(line, victim="lenet") for line in crossed]])
    assert sorted(re.search(r"victim (\w+)", matrix.setting)[1] for matrix in both) == ["convnet", "lenet"]
    assert {len(matrix.lines) for matrix in both} == {3}


@pytest.mark.parametrize(("adapt", "kind"), [(True, "adaptive"), (False, "non-adaptive")])
def test_with_one_kind_of_attacker_the_setting_names_it(crossed, adapt, kind):
    (matrix,) = matrices([line for line in crossed if line["adapt"] is adapt or line["defense"] == "none"])
    assert set(matrix.lines) == {"gias", "ig"}
    assert matrix.setting.endswith(f", {kind} attackers")
    assert matrix.gains == {}
    assert len(matrix.tables()) == 1


def test_the_same_attack_with_other_options_has_a_line_of_its_own(crossed):
    longer = [dict(line, steps=400, options={"tv": 0.5}) for line in crossed if line["attack"] == "ig"]
    (matrix,) = matrices([*crossed, *longer])
    assert "ig, steps 100, options tv=0.1, non-adaptive" in matrix.lines
    assert "ig, steps 400, options tv=0.5, non-adaptive" in matrix.lines
    assert "gias, adaptive" in matrix.lines


def test_tables_show_interval_count_and_verdict(crossed, row):
    scores, gains = matrices([*crossed, row(attack="ig", defense="clip:1", adapt=True, task="t2", psnr=21)])[0].tables()
    cells = dict(zip(scores.columns["attack"], zip(*list(scores.columns.values())[1:], strict=True), strict=True))
    assert cells["ig, adaptive"] == ("21.00 [8.29, 33.7] (n=2)", "16.00 [0.00, 41.4] (n=2) (best)",
                                     "20.00 [17.5, 22.5] (best)")  # fmt: skip
    assert cells["ig, non-adaptive"][2] == "-"
    assert "n = 3" in scores.above
    assert gains.columns["topk:0.9"] == ["+2.000 [-10.7, 14.7] (n=2) too few batches (2; 5 needed)"]
    assert "clip:1" not in gains.columns


def test_it_is_written_as_markdown_and_picture(crossed, tmp_path):
    found = matrices(crossed)
    assert write([], tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    document, picture = write([*found, *found], tmp_path)
    assert document.read_text().count("| gias, adaptive | 25.00 [0.00, 50.4] (best) | 12.50 [6.15, 18.9] | - |") == 2
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert (pixels[0, 0] == 255).all()  # a light background
    one = tmp_path / "one"
    one.mkdir()
    assert pixels.shape[0] > 1.9 * Image.open(write(found, one)[1]).height  # a panel for each


FRAMED = {
    "psnr": [("clip:1", "ig"), ("none", "gias"), ("topk:0.9", "ig")],
    "lpips": [("clip:1", "ig"), ("none", "ig"), ("topk:0.9", "gias")],
}


@pytest.mark.parametrize(("metric", "colors"), [("psnr", "cividis"), ("lpips", "cividis_r")])
def test_the_largest_leak_is_bright_and_the_best_attack_of_each_column_framed(
    crossed, row, metric, colors, monkeypatch, tmp_path
):
    rows = [dict(line, lpips=line["psnr"] / 100) for line in crossed if line["adapt"] or line["defense"] == "none"]
    control = row(control="mean_image", task="t0", image="t0", psnr=60, lpips=0.01)  # the best by both
    figures = []
    monkeypatch.setattr(module, "write_figure", lambda path, figure: figures.append(figure))
    found = matrices([*rows, control], metric)
    draw(found, tmp_path / "matrix.png")
    ((matrix,), axis) = found, figures[0].axes[0]
    (image,), lines = axis.images, [*matrix.lines]
    assert image.get_cmap().name == colors
    means = [[line[d].mean if d in line else np.nan for d in matrix.defenses] for line in matrix.lines.values()]
    np.testing.assert_allclose(image.get_array().filled(np.nan), means)
    centers = [patch.get_center() for patch in axis.patches]
    assert sorted((matrix.defenses[round(x)], lines[round(y)]) for x, y in centers) == FRAMED[metric]


def test_the_command_prints_and_writes_it(crossed, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in crossed))
    done = subprocess.run(
        [sys.executable, "-m", "leaderboard", str(tmp_path), "--metric=ssim"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "SSIM by attack and defense" in done.stdout
    assert "SSIM, adaptive - non-adaptive" in done.stdout
    assert done.stdout.splitlines()[-5:-3] == [str(tmp_path / "matrix.md"), str(tmp_path / "matrix.png")]
    assert "0.1600" in (tmp_path / "matrix.md").read_text()
