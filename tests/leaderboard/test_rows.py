import json

import pytest

from leaderboard.rows import read_rows


@pytest.mark.parametrize("line", ["[1, 2]", json.dumps({"psnr": 3}), "null", "\udcff"])
def test_a_foreign_line_is_left_out_and_reported(tmp_path, row, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row()) + "\n" + line + "\n", errors="surrogateescape")
    rows, warnings = read_rows(path)
    assert len(rows) == len(warnings) == 1


def read(tmp_path, *rows):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_rows(tmp_path / "rows.jsonl")


def test_rows_written_before_they_named_their_metrics_have_the_six(tmp_path, row):
    older = row(defense="sparsification:0.9", bn="unmixed")
    del older["higher_is_better"], older["ranges"], older["axis"], older["gradient_path"]
    ((found,), warnings) = read(tmp_path, older)
    assert warnings == []
    assert (found["higher_is_better"], found["ranges"]) == (row()["higher_is_better"], row()["ranges"])
    assert found["axis"] == {"share of the update that is not sent": 0.9}
    assert (found["bn"], found["gradient_path"]) == ("recovered", "")


def test_a_metric_that_an_older_row_names_alone_has_no_range(tmp_path, row):
    older = row(hue=1.0, higher_is_better={"psnr": True, "hue": True})
    del older["ranges"]
    ((found,), _) = read(tmp_path, older)
    assert found["ranges"] == {"psnr": [0, 100], "hue": [None, None]}


@pytest.mark.parametrize(
    ("defense", "now"),
    [
        ("quantisation:4", "quantization:4"),
        ("clipping:1+quantisation:4", "clipping:1+quantization:4"),
        ("my.quantisation:4", "my.quantisation:4"),
    ],
)
def test_a_defense_written_under_its_older_name_has_its_name(tmp_path, row, defense, now):
    assert read(tmp_path, row(defense=defense))[0][0]["defense"] == now


@pytest.mark.parametrize("change", [{"defense": 3}, {"higher_is_better": ["psnr"]}, {"higher_is_better": {"hue": 1}}])
def test_a_row_that_cannot_be_used_is_left_out(tmp_path, row, change):
    rows, (warning,) = read(tmp_path, row(**change), row())
    assert len(rows) == 1
    assert "rows.jsonl:1 is not a row of this version" in warning


@pytest.mark.parametrize("key", ["attack", "options", "protocol", "task", "psnr", "prior_trained_on"])
def test_a_row_without_what_every_row_has_is_left_out(tmp_path, row, key):
    broken = row()
    del broken[key]
    assert [len(part) for part in read(tmp_path, broken, row())] == [1, 1]


def test_the_settings_of_a_row_are_those_of_the_options(scored):
    settings = scored().settings
    with pytest.raises(ValueError, match="color"):
        scored(settings={**settings, "color": "red"})
    with pytest.raises(ValueError, match="victim"):
        scored(settings={key: value for key, value in settings.items() if key != "victim"})


def test_a_row_has_its_scores_among_its_keys(scored):
    line = scored(psnr=12.0).flat()
    assert (line["psnr"], line["lpips"]) == (12.0, 0.25)
    assert "scores" not in line


def test_rows_written_before_there_were_rounds_are_of_one(tmp_path, row):
    older = row()
    del older["rounds"], older["between"]
    (tmp_path / "rows.jsonl").write_text(json.dumps(older) + "\n")
    rows, warnings = read_rows(tmp_path / "rows.jsonl")
    assert (rows[0]["rounds"], rows[0]["between"], warnings) == (1, 0, [])
    assert rows[0]["psnr"] == older["psnr"]
