import csv

import pytest

from leaderboard.board import entries
from leaderboard.rows import PROTOCOL
from leaderboard.statistics import Score
from leaderboard.table import as_csv, as_markdown, as_text, difference_table


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")


def line(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


@pytest.fixture
def two_attacks(row):
    return entries(
        [row(task=t, image=t, psnr=p) for t, p in (("t0", 14.864), ("t1", 15.776))]
        + [row(attack="gias", prior="dcgan", task=t, image=t, psnr=p, lpips=None) for t, p in (("t0", 20), ("t1", 24))]
    )


def test_mean_interval_and_absence(two_attacks):
    text = as_text(two_attacks)
    assert "15.32 [9.53, 21.1]" in line(text, "ig")
    assert line(text, "gias").split()[:3] == ["gias", "dcgan", "2"]
    assert "22.00 [0.00, 47.4]" in line(text, "gias")
    assert " - " in line(text, "gias")
    assert " - " not in line(text, "ig")


def test_only_what_varies_is_a_column_and_the_rest_is_named_once(two_attacks):
    common, table, *_ = as_text(two_attacks).split("\n\n")
    header, *lines = table.splitlines()
    assert "prior" in header.split()
    assert "size 32" in common
    assert "prior" not in common.replace("prior_trained_on", "")
    assert "victim" not in header
    assert all("convnet" not in line for line in lines)


def test_a_control_without_a_setting_makes_no_column(row):
    header = as_text(entries([row(), row(control="mean_image")])).split("\n\n")[1].splitlines()[0]
    assert header.split()[:2] == ["attack", "n"]


def test_options_tell_entries_of_one_attack_apart(row):
    rows = [row(options={"tv": 0.1, "lr": 1}), row(options={"tv": 0.2, "lr": 1}), row(attack="dlg", options={"q": 5})]
    text = as_text(entries(rows))
    assert {"tv=0.1", "tv=0.2"} <= set(text.split())
    assert "lr=1" not in text
    assert "q=5" not in text


def test_mark_of_an_older_protocol(row):
    now, before = row(), row(attack="dlg", protocol=PROTOCOL - 1)
    assert "*" not in as_text(entries([now]))
    text = as_text(entries([now, before]))
    assert line(text, "dlg").startswith("dlg* ")
    assert line(text, "ig").startswith("ig ")
    assert "\n* older protocol. recognized: share of images" in text


def test_a_table_says_why_lpips_or_recognized_is_missing(row):
    assert "needs" not in as_text(entries([row()]))
    assert "No LPIPS" not in as_text(entries([row()]))
    small = as_text(entries([row(lpips=None)]))  # smaller than its network takes
    assert "No LPIPS where its network has no weights, images are too small for it, or runs differ in it." in small
    without = {name: higher for name, higher in row()["higher_is_better"].items() if name != "lpips"}
    asked = row(higher_is_better={**without, "lpips_alex": False}, lpips_alex=0.2, lpips_backbone="none: not asked for")
    del asked["lpips"]
    assert as_text(entries([asked])).endswith("\n\nrecognized needs the LPIPS of squeeze.\n")


def test_diverged_images_have_a_column_where_there_are_any(row):
    diverged = row(attack="dlg", status="diverged", cost=None, psnr=0)
    assert "diverged" not in as_text(entries([row()]))
    text = as_text(entries([row(), diverged]))
    heading = next(line for line in text.splitlines() if line.startswith("attack"))
    assert heading.split()[:4] == ["attack", "n", "tasks", "diverged"]
    assert [line(text, name).split()[3] for name in ("ig", "dlg")] == ["0", "1"]


def test_degenerate_images_are_counted_and_the_psnr_is_shown_without_them(row):
    rows = [row(image="a", psnr=60, degenerate=True), row(image="b"), row(image="c", psnr=10)]
    (entry,) = entries(rows)
    assert (entry.degenerate, entry.n, entry.psnr.mean, entry.psnr_of_others.mean) == (1, 3, 30, 15)
    assert "PSNR ↑ without degenerate" in (text := as_markdown([entry]))
    assert "15.00 [-] (n=2)" in text
    assert "degenerate" not in as_markdown(entries(rows[1:]))
    assert next(csv.DictReader(as_csv([entry]).splitlines()))["psnr_of_others"] == "15.0"


def test_a_degenerate_image_of_an_attack_that_diverged_is_counted_as_both(row):
    (entry,) = entries([row(psnr=0, status="diverged", cost=None, degenerate=True), row(image="b")])
    assert (entry.diverged, entry.degenerate, entry.psnr.mean, entry.psnr_of_others.mean) == (1, 1, 10, 20)


def test_fewer_values_than_images_are_shown(row):
    text = as_text(entries([row(image="a", lpips=None), row(image="b")]))
    assert "(n=1)" in line(text, "ig")
    assert text.count("(n=") == 2  # of LPIPS, and of the images that are recognized by it


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_text_fits_the_terminal_and_loses_nothing(two_attacks, monkeypatch, columns):
    cells = set(as_text(two_attacks).split())
    monkeypatch.setenv("COLUMNS", str(columns))
    text = as_text(two_attacks)
    assert max(map(len, text.splitlines())) <= columns
    assert set(text.split()) == cells


def test_markdown_is_one_table_of_equal_rows(row):
    text = as_markdown(entries([row(attack="a|b"), row(attack="dlg", protocol=PROTOCOL - 1)]))
    lines = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert "a\\|b" in text
    assert "dlg\\*" in text


def test_csv_parses_back(row):
    board = entries([row(psnr=15.123456789, options={"a": 1, "b": 2}, lpips=None), row(attack='x, "y"', psnr=10)])
    first, second = csv.DictReader(as_csv(board).splitlines())
    assert float(first["psnr"]) == 15.123456789
    assert (first["psnr_low"], first["lpips"], first["lpips_n"], first["psnr_n"]) == ("", "", "", "1")
    assert (first["options"], first["batch_size"], first["adapt"]) == ("a=1, b=2", "2", "False")
    assert second["attack"] == 'x, "y"'


def test_an_empty_board_is_only_a_header():
    assert as_text([]).split()[0] == "attack"
    assert as_csv([]).count("\n") == 1
    assert as_markdown([]).count("\n") == 2


def test_differences_name_both_sides(two_attacks):
    gias, ig = two_attacks
    scores = {"psnr": Score(6.68, 5.1, 8.2, 6, 6, p=0.01), "ssim": Score(-0.2, -0.3, -0.1, 6, 6, p=0.02)}
    scores |= {"mse": Score(0.1, -0.1, 0.2, 5, 5, p=0.3), "iip": Score(0.5, 0.0, 1.0, 6, 4, p=0.01)}
    scores |= {"fsim": None, "lpips": None}
    table = difference_table(ig, [(gias, scores)], two_attacks)
    assert "minus attack ig, prior none" in table.above
    assert table.above.endswith("Verdicts at p < .05.")
    assert {heading: cells[0] for heading, cells in table.columns.items()} == {
        "attack": "gias",
        "prior": "dcgan",
        "n": "6",
        "PSNR ↑": "+6.680 [5.10, 8.20] better",
        "SSIM ↑": "-0.2000 [-0.300, -0.100] worse",
        "FSIM ↑": "-",
        "LPIPS ↓": "-",
        "MSE ↓": "+0.1000 [-0.100, 0.200] (n=5) no difference shown",
        "IIP ↑": "+0.5000 [0.00, 1.00] too few batches (4; 5 needed)",
    }


def test_differences_from_one_attack_are_corrected_for_their_number(two_attacks):
    """0.03 is a verdict on one difference; on two it is 2 * 0.03."""
    gias, ig = two_attacks
    alone, other = ({"psnr": Score(2, 1, 3, 6, 6, p=p)} for p in (0.03, 0.2))
    table = difference_table(ig, [(gias, alone), (gias, other)], two_attacks)
    assert [cell.split("] ")[1] for cell in table.columns["PSNR ↑"]] == ["no difference shown"] * 2
    assert "Holm's correction for 2 comparisons" in table.above


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum(1)", "\t=1"])
def test_a_spreadsheet_computes_nothing_of_what_others_wrote(row, name):
    header, line = csv.reader(as_csv(entries([row(attack=name, psnr=-3.0)])).splitlines())
    assert line[header.index("attack")] == f"'{name}"
    assert float(line[header.index("psnr")]) == -3.0


def test_markdown_of_what_others_wrote_is_text(row):
    text = as_markdown(entries([row(attack="<img src=x onerror=a()>"), row(attack="[x](javascript:a)\\|b\n# c")]))
    assert "<" not in text
    assert "&lt;img" in text
    assert "](" not in text
    assert "\\\\\\|b?# c" in text


def test_a_terminal_is_not_steered_by_what_others_wrote(row):
    assert "\x1b" not in as_text(entries([row(attack="\x1b[2Jx"), row(defense="\x1b]0;x\x07")]))


def test_a_digest_is_a_column_only_where_it_tells_entries_apart(row):
    rows = [row(attack_digest="one", victim_digest="old"), row(attack="gias", attack_digest="two", victim_digest="old")]
    assert "digest" not in as_text(entries(rows))
    shown = as_text(entries([*rows, row(attack_digest="one", victim_digest="new")]))
    assert "victim_digest" in shown
    assert "attack_digest" not in shown
    assert "attack_digest" in as_csv(entries(rows))
