import json
import random
import re
from math import nan
from pathlib import Path

import pytest

from leaderboard.answers import behind
from leaderboard.board import entries, entries_with_rows, places
from leaderboard.matrix import matrices
from leaderboard.reported import Reported
from leaderboard.results import results
from leaderboard.rows import PROTOCOL
from leaderboard.statistics import EXCLUDED, MAYBE
from leaderboard.table import as_csv, as_text


def published(attack="ig", **setting):
    """A published number, as `leaderboard.reported` returns it."""
    return Reported(
        table="table1",
        method=attack.upper(),
        attack=attack,
        source="a paper, table 1",
        setting=setting or {"data": "photos", "size": 32},
        values={"psnr": 19.5},
        note="other labels",
    )


def of(rows, folder="run", **options):
    return results(rows, [Path(folder)] * len(rows), **options)


def by_attack(found):
    return {entry["attack"]: entry for entry in found["entries"]}


def batches(row, values, **fields):
    """One image in each batch."""
    return [row(task=f"t{i}", image=f"i{i}", psnr=value, batch_size=1, **fields) for i, value in enumerate(values)]


def test_best_in_batch_by_hand(row):
    rows = [
        row(task=t, image=i, psnr=p) for t, i, p in [("t0", "a", 10), ("t0", "b", 20), ("t1", "c", 14), ("t1", "d", 4)]
    ]
    (entry,) = entries(rows)
    assert entry.scores["psnr"].mean == 12
    assert entry.best_in_batch[:5] == pytest.approx((17, 0, 17 + 12.706 * 3, 2, 2), rel=1e-4)  # 20 and 14
    assert "17.00 [0.00, 55.1]" in as_text([entry])
    assert re.search(r"17.0,0,55.1\d*,2,2", as_csv([entry]))


def test_best_in_batch_is_by_seed_and_leaves_out_what_is_not_known(row):
    rows = [row(seed=0, image="a", psnr=nan), row(seed=0, image="b", psnr=6), row(seed=1, image="a", psnr=8)]
    best = entries(rows)[0].best_in_batch
    assert (best.mean, best.n) == (7, 2)


def test_places_and_ties_by_hand(row, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    rows = [
        *batches(row, [30, 31, 30, 31, 30], attack="first"),
        *batches(row, [20, 26, 21, 25, 23], attack="second"),
        *batches(row, [21, 23, 21, 23, 22], attack="tied"),
        *batches(row, [5, 6, 5, 6, 5], attack="last"),
        *batches(row, [40, 41, 40, 41, 40], attack="elsewhere", defense="clip"),
        *batches(row, [50, 51, 50, 51, 50], attack="ig", control="shuffled_update"),
        *batches(row, [25, 25.1, 25, 25.1], attack="four batches"),
        *batches(row, [0] * 5, attack="diverged", status="diverged", cost=None),
    ]
    board = entries(rows)
    found = {entry.attack: place for entry, place in zip(board, places(board), strict=True)}
    assert found == {
        "first": (1, False),
        "second": (2, True),
        "tied": (2, True),
        "last": (4, False),
        "elsewhere": (1, False),
        "ig, shuffled update (control)": None,
        "four batches": None,
        "diverged": None,
    }
    text = {line.split("  ")[0]: line for line in as_text(board).splitlines()}
    assert " 2= " in text["tied"]
    assert "too few batches (4; 5 needed)" in text["four batches"]
    assert sum("too few" in line for line in text.values()) == 1
    assert by_attack(of(rows))["four batches"]["too_few"] == "too few batches (4; 5 needed)"


def test_batches_that_share_images_are_no_reason_for_more_of_them(row):
    """Six batches in a ring: each shares an image with the next."""
    images = [(f"t{i}", f"i{j % 6}") for i in range(6) for j in (i, i + 1)]
    rows = [row(task=t, image=i, attack=name, psnr=p) for name, p in (("a", 20), ("b", 10)) for t, i in images]
    reason = "6 batches share images, count as 1 (5 needed): fewer TASKS or more images"
    found = by_attack(of(rows))
    assert found["a"]["too_few"] == found["b"]["differences"]["psnr"]["verdict"] == reason
    assert as_text(entries(rows)).count(reason) == 2


def test_differences_are_paired_with_the_best_or_with_the_named(row):
    psnr = {"a": [20, 24, 20, 24, 22], "b": [10, 12, 8, 14, 11], "c": [9, 8, 7, 9, 8]}
    rows = [line for attack, values in psnr.items() for line in batches(row, values, attack=attack)]
    found = by_attack(of(rows))
    assert found["a"]["reference"] is None
    assert found["b"]["reference"] == found["c"]["reference"] == found["a"]["id"]
    difference = found["b"]["differences"]["psnr"]  # of -10, -12, -12, -10 and -11: the standard error is sqrt(0.2)
    half = 2.7764 * 0.2**0.5
    assert [difference[key] for key in ("mean", "low", "high")] == pytest.approx(
        [-11, -11 - half, -11 + half], rel=1e-4
    )
    assert [difference[key] for key in ("n", "clusters", "verdict")] == [5, 5, "not the best"]
    assert found["b"]["differences"]["ssim"]["verdict"] == "no difference shown"
    assert found["b"]["corrected"].startswith("By PSNR: 'Not the best' is a verdict at p < .025, one-sided")
    assert "By other metrics: Verdicts at p < .05 after Holm's correction for 3 comparisons" in found["b"]["corrected"]
    assert found["a"]["corrected"] == ""
    against = by_attack(of(rows, against="b"))["a"]
    assert against["differences"]["psnr"]["mean"] == 11
    assert against["differences"]["psnr"]["verdict"] == "better"
    assert against["corrected"].endswith("for 2 comparisons by each metric.")  # `b` was not chosen by these rows


def test_the_board_of_a_folder_says_of_an_attack_what_the_board_of_record_says(row):
    """That it is not the best needs as many comparisons as there are other attacks; a control is none."""
    noise = [0.0, 3.0, -2.0, 1.0, -3.0, 2.0]
    psnr = {"a": [20.0 + d for d in noise], "b": [17.0] * 6, "c": [16.0, *[15.0] * 5], "d": [15.0] * 6, "e": [14.0] * 6}
    rows = [line for attack, values in psnr.items() for line in batches(row, values, attack=attack)]
    with_control = [*rows, *batches(row, [1.0 - d for d in noise], attack="a", control="shuffled_update")]
    said = {each.other.attack: each.verdict for each in behind(entries_with_rows(rows))}
    assert set(said.values()) == {MAYBE, EXCLUDED}
    for some in (rows, with_control):
        found = by_attack(of(some))
        assert {name: found[name]["differences"]["psnr"]["verdict"] for name in "bcde"} == said
    assert found["a, shuffled update (control)"]["differences"]["psnr"]["verdict"] == "worse"


def test_a_single_attack_was_not_chosen(row):
    control = {"control": "shuffled_update"}
    rows = [line for name in "ab" for line in batches(row, [9, 8, 7, 9, 8], attack=name, **control)]
    found = by_attack(of([*rows, *batches(row, [20, 24, 20, 24, 22], attack="a")]))
    assert found["b, shuffled update (control)"]["corrected"].endswith("for 2 comparisons by each metric.")


def test_a_mean_image_is_in_every_setting_with_its_images_and_compared_with_the_best_there(row):
    rows = [row(psnr=20, image="a"), row(psnr=18, defense="clip"), row(psnr=9, size=64)]
    control = row(psnr=12, control="mean_image", attack="gias", defense="clip")
    found = of([*rows, control])
    mean_image = by_attack(found)["mean image (control)"]
    assert sorted(found["settings"][i] for i in mean_image["settings"]) == [
        "photos, 32 px, convnet, batch 2, defense clip",
        "photos, 32 px, convnet, batch 2, defense none",
    ]
    assert mean_image["knowledge"] == []
    assert mean_image["differences"]["psnr"]["n"] == 1


def test_stale_rows_stand_alone(row):
    found = by_attack(of([row(attack="old", protocol=PROTOCOL - 1), row(attack="new", psnr=30)]))
    assert (found["old"]["stale"], found["new"]["stale"]) == (True, False)
    assert found["old"]["reference"] is None  # nothing of its protocol to compare it with
    assert found["old"]["settings"] != found["new"]["settings"]


def test_knowledge_in_words(row):
    fields = {"prior": "dcgan", "prior_trained_on": "faces", "bn": "exact", "defense": "clip", "labels": "inferred"}
    (entry,) = of([row(**fields, label_method="alr", lr=0.1, know_lr=False)])["entries"]
    assert entry["knowledge"] == [
        "labels inferred by alr",
        "prior dcgan (trained on faces)",
        "batch-norm statistics: exact",
        "does not know the defense",
        "does not know the learning rate",
    ]
    (entry,) = of([row(defense="clip", adapt=True, surrogate="parameter")])["entries"]
    assert "knows the defense (surrogate: parameter)" in entry["knowledge"]


@pytest.mark.parametrize(("adapt", "kind"), [(True, "adaptive"), (False, "non-adaptive")])
def test_sweeps_by_batch_size_and_along_the_axis_of_a_defense(row, adapt, kind):
    rows = [row(batch_size=b, psnr=30 - b) for b in (1, 4)]
    defended = {"batch_size": 4, "adapt": adapt}
    rows += [row(**defended, defense=f"mine:{x}", axis={"strength": x}, psnr=20 - 10 * x) for x in (0.9, 0.5)]
    rows += [row(**defended, defense="clip")]
    first, second = of(rows)["sweeps"]
    assert (first["axis"], second["axis"]) == ("images in a batch", "strength")
    assert [(point["x"], point["mean"]) for point in first["lines"][0]["points"]] == [(1, 29), (4, 26)]
    assert [(point["x"], point["mean"]) for point in second["lines"][0]["points"]] == [(0, 26), (0.5, 15), (0.9, 11)]
    assert second["setting"].endswith(f", {kind} attackers")


def test_a_sweep_over_the_victims_training_begins_without_any(row):
    rows = [row(psnr=20), row(attack="dlg", psnr=10), row(defense="clip", psnr=5)]
    for steps, psnr in ((1000, 12), (100, 15)):
        trained = {"epochs_trained": f"{steps}steps", "victim_digest": f"with {steps}"}
        rows += [row(**trained, psnr=psnr, axis={"steps of the victim's training": steps})]
    (sweep,) = of(rows)["sweeps"]
    assert sweep["axis"] == "steps of the victim's training"
    assert [[(p["x"], p["mean"]) for p in line["points"]] for line in sweep["lines"]] == [
        [(0, 20), (100, 15), (1000, 12)]
    ]
    assert "trained" not in sweep["setting"]


def test_an_axis_that_older_rows_of_an_entry_do_not_name_is_known(row):
    rows = [row(), row(defense="noise:2"), row(defense="noise:2", task="t1", axis={"noise": 2.0})]
    assert [sweep["axis"] for sweep in of(rows)["sweeps"]] == ["noise"]


def test_every_axis_has_its_own_charts(row):
    rows = [row(), row(defense="noise:2", axis={"noise": 2.0}), row(defense="mask:1", axis={"mask": 1.0})]
    assert {s["axis"]: [p["x"] for p in s["lines"][0]["points"]] for s in of(rows)["sweeps"]} == {
        "noise": [0, 2],
        "mask": [0, 1],
    }


def test_a_metric_is_shown_because_rows_have_it(row):
    new = {"higher_is_better": {"psnr": True, "hue": False}, "hue": 0.25}
    rows = [row(**new), row(defense="clip"), row(**new | {"hue": 0.5, "attack": "dlg"})]
    found = of(rows)
    assert found["metrics"] == {"psnr": True, "hue": False, "ssim": True, "fsim": True, "lpips": False, "mse": False,
                                "iip": True}  # fmt: skip
    ig = next(entry for entry in found["entries"] if entry["attack"] == "ig" and "hue" in entry["scores"])
    assert (ig["scores"]["hue"]["mean"], ig["rows"][0]["hue"]) == (0.25, 0.25)
    assert "ssim" not in ig["scores"]
    (header, *lines) = as_csv(entries(rows)).splitlines()
    assert "hue,hue_low,hue_high,hue_n" in header
    assert all(line.count(",") == header.count(",") for line in lines)
    assert "HUE ↓" in as_text(entries(rows))
    assert matrices([*rows, row(**new, defense="clip", attack="dlg")], "hue")[0].best("none") == 0.25


def test_reported_stands_beside_the_same_attack_in_the_same_setting(row):
    reported = [published(), published(data="ffhq"), published("gias")]
    reported += [published(options=option) for option in ({"tv": 0.1}, {"tv": 0.2}, {"tv": None}, {"eta": None})]
    found = of([row(), row(control="shuffled_update")], reported=reported)
    attack, control = sorted(found["entries"], key=lambda entry: entry["control"])
    assert [number["setting"] for number in attack["reported"]] == [reported[i].setting for i in (0, 3, 6)]
    assert control["reported"] == []
    assert len(found["reported"]) == len(reported)


def test_what_tells_attacks_of_one_setting_apart(row):
    options = {"plan": {"z": 8, "w": 8}}
    found = of([row(options=options | {"tv": 1}), row(options=options | {"tv": 2}), row(attack="dlg", size=64)])
    assert sorted(entry["variant"] for entry in found["entries"]) == ["", "tv=1", "tv=2"]
    assert "plan=z:8,w:8 tv=1" in [entry["fields"]["options"] for entry in found["entries"]]


def test_what_adapting_gains_has_its_verdict_on_the_page(row):
    psnr = {True: [12, 14, 12, 14, 13], False: [8, 8, 9, 9, 10]}
    rows = [line for adapt in psnr for line in batches(row, psnr[adapt], defense="clip", adapt=adapt)]
    (matrix,) = of([*rows, *batches(row, [20] * 5)])["matrices"]
    ((cell,),) = [line["cells"][1:] for line in matrix["gains"]]
    assert (cell["mean"], cell["n"], cell["verdict"]) == (4.2, 5, "better")
    assert matrix["what_gains_are"].endswith("paired over the images that both have. Verdicts at p < .05.")


def test_matrices_are_those_of_the_board(row):
    (matrix,) = of([row(psnr=20), row(psnr=10, defense="clip", adapt=True)])["matrices"]
    assert matrix["defenses"] == ["none", "clip"]
    assert [cell["mean"] for cell in matrix["lines"][0]["cells"]] == [20, 10]


def test_curves_and_pictures_of_a_run(tmp_path, row):
    for name in ("curves", "reconstructions", "truth"):
        (tmp_path / name).mkdir()
    (tmp_path / "curves" / "t0.csv").write_text("step,stage,cost\n0,x,2\n1,x,1\n")
    (tmp_path / "curves" / "t1.csv").write_text("torn")
    (tmp_path / "reconstructions" / "t0--a.png").touch()
    (tmp_path / "truth" / "a.png").touch()
    found = of([row(), row(task="t1")], folder=tmp_path)
    first, second = found["entries"][0]["rows"]
    assert first["reconstruction"] == str(tmp_path / "reconstructions" / "t0--a.png")
    assert first["truth"] == second["truth"] == str(tmp_path / "truth" / "a.png")
    assert second["reconstruction"] is None
    assert found["entries"][0]["curve"]["median"] == [2, 1]
    assert "t1.csv" in found["warnings"][0]


def test_one_command_for_each_run(tmp_path, row):
    for name, tv in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"attack: ig\nset: [tv={tv}]\n")
    rows = [row(seed=seed) for seed in range(3)]
    (entry,) = results(rows, [tmp_path / name for name in "abc"])["entries"]
    assert entry["commands"] == [f"python -m benchmark run --method=ig --set=tv={tv}" for tv in (1, 2)]


def test_a_run_that_gave_some_scores_of_an_entry_has_its_command_there(tmp_path, row):
    for name, lpips in (("a", "squeeze"), ("b", "alex"), ("c", "squeeze")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"attack: ig\nlpips: {lpips}\nseed: {int(name == 'c')}\n")
    alex = row(lpips=None, lpips_backbone="none: not asked for", lpips_alex=0.2)
    alex["higher_is_better"] = {**alex["higher_is_better"], "lpips_alex": False}
    (entry,) = results([row(), alex, row(seconds=1.0)], [tmp_path / name for name in "abc"])["entries"]
    assert entry["commands"] == [f"python -m benchmark run --method=ig{more}" for more in ("", " --lpips=alex")]


def test_plain_json_whatever_the_order_of_rows(row):
    source = random.Random(5)
    rows = [
        row(task=f"t{i // 2}", image=str(i % 2), attack=attack, psnr=source.gauss(15, 2), lpips=nan, defense=defense)
        for i in range(6) for attack in ("ig", "gias") for defense in ("none", "clip")
    ]  # fmt: skip
    expected = json.dumps(of(rows), allow_nan=False)
    source.shuffle(rows)
    assert json.dumps(of(rows), allow_nan=False) == expected


@pytest.mark.parametrize("field", ["seconds", "psnr"])
def test_numbers_have_six_digits(row, field):
    (entry,) = of([row(**{field: 1.23456789})])["entries"]
    assert (entry["seconds"] if field == "seconds" else entry["scores"]["psnr"]["mean"]) == 1.23457
