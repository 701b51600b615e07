"""The measurement of speed: end to end on the smallest victim, and its arithmetic by hand."""

import json

import pytest
import torch

from tests.speed import __main__ as speed
from tests.speed.cells import Cell
from tests.speed.memory import tensor_peak
from tests.speed.report import draw, summary, table

ONE = ["--quick", "--method", "ig", "--victim", "lenet", "--restarts", "1", "--budget", "1"]


def test_the_quick_path_has_every_number_and_continues(tmp_path, monkeypatch, capsys):
    assert speed.main([*ONE, "--out", str(tmp_path)]) == 0
    kept = json.loads((tmp_path / "speed.json").read_text())
    assert kept["about"].keys() == {"device", "threads", "versions", "commit", "peak"}
    assert kept["about"]["peak"]["flops_per_second"] > 1e8
    (record,) = kept["cells"]
    cell = {"method": "ig", "victim": "lenet", "batch": 1, "restarts": 1, "size": 32, "compile": "off"}
    assert record["cell"] == cell
    assert record["parameters"] == 15_826  # 3 and 12 channels through 5x5, 12 biases each, 768 features to 10 classes
    assert record["plan"] == {"x": 600}
    stage = record["stages"]["x"]
    assert len(stage["suite"]["wall"]) == len(stage["plain"]["wall"]) > 0
    assert stage["drift"] < 1e-3
    assert len(record["lightning"]["under"]["wall"]) == len(record["lightning"]["bare"]["wall"]) > 0
    image = 3 * 32 * 32 * 4  # bytes
    assert all(
        record["memory"][who]["x"]["tensors"] > 4 * image + 4 * record["parameters"] for who in ("suite", "plain")
    )
    missing = {key for key, value in record["summary"].items() if value is None}
    assert missing <= {"suite_resident", "plain_resident"}
    assert (tmp_path / "speed.png").stat().st_size > 0

    monkeypatch.setattr(speed, "measured", lambda *_: pytest.fail("measured again"))
    capsys.readouterr()
    assert speed.main([*ONE, "--out", str(tmp_path)]) == 0
    assert "lenet" in capsys.readouterr().out

    other = kept | {"about": kept["about"] | {"device": "another"}}
    (tmp_path / "speed.json").write_text(json.dumps(other))
    assert speed.main([*ONE, "--out", str(tmp_path)]) == 2
    assert "measured with another device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--method", "dlg", "there is no plain loop"),
        ("--batch", "0", "whole numbers from 1"),
        ("--compile", "yes", "off, on, or"),
    ],
)
def test_a_bad_option_gives_one_line(tmp_path, capsys, option, value, said):
    assert speed.main(["--quick", option, value, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_other_sizes_are_for_ig_at_the_first_batch_and_restarts():
    chosen = {"method": "ig,ggl", "victim": "lenet", "batch": "1,4", "restarts": "2,4", "size": "32,64"}
    chosen["compile"] = "off"
    found = speed.cells(chosen)
    assert len(found) == 9
    assert [cell for cell in found if cell.size != 32] == [Cell("ig", "lenet", 1, 2, 64)]


def test_the_peak_of_tensors_is_what_lives_at_once():
    """During the steps: 1 MiB from the set-up, 4 of the step, and 4 of its sum; not the 40 freed before."""
    kept = []

    def begin():
        torch.empty(40 * 2**20, dtype=torch.uint8)
        kept.append(torch.empty(2**20, dtype=torch.uint8))

    def step():
        a = torch.zeros(4 * 2**20, dtype=torch.uint8)
        a + a

    assert tensor_peak(begin, step, 3) == pytest.approx(9 * 2**20, abs=1024)


@pytest.fixture
def record():
    """Two stages: 3 steps of 1 s and 1 step of 5 s against twice as much; 2 operations per step each."""

    def times(seconds):
        return {"wall": [2 * seconds, 2 * seconds, 9.0], "processor": [seconds, seconds, 9.0]}

    stages = {
        name: {"suite": times(s), "plain": times(2 * s), "flops": 2, "drift": d, "first_step": 7.0}
        for name, s, d in (("z", 1.0, 1e-6), ("w", 5.0, 1e-4))
    }
    of_all = {"tensors": 2**20, "resident": None}
    return {
        "cell": {"method": "gias", "victim": "lenet", "batch": 4, "restarts": 1, "size": 32, "compile": "off"},
        "parameters": 10,
        "plan": {"z": 3, "w": 1},
        "stages": stages,
        "lightning": {
            "under": {"wall": [], "processor": [1.01, 2.04, 1.5]},
            "bare": {"wall": [], "processor": [1.0, 2.0, 1.0]},
        },
        "memory": {"suite": {"z": of_all, "w": {**of_all, "tensors": 2**22}}, "plain": {"z": of_all, "w": of_all}},
    }


def test_a_summary_by_hand(record):
    found = summary(record, peak=10.0)
    assert found == pytest.approx(
        {
            "step": 2.0,
            "plain_step": 4.0,
            "ratio": 2.0,
            "ratio_wall": 2.0,
            "steps_per_second": 0.25,
            "images_per_hour": 3600 * 4 / (4 * 4),
            "suite_tensors": 2**22,
            "suite_resident": None,
            "plain_tensors": 2**20,
            "plain_resident": None,
            "peak_share": 0.1,
            "plain_peak_share": 0.05,
            "lightning": 0.02,
            "first_step": 7.0,
            "drift": 1e-4,
        }
    )


def test_table_and_picture_show_it(record, tmp_path):
    shown = [record | {"summary": summary(record, peak=10.0)}]
    about = {"device": "a machine", "versions": {"torch": "2"}, "commit": "c", "peak": {"flops_per_second": 10.0}}
    text = table(about, shown).markdown()
    assert "| 2.00 | 2.00 |" in text
    assert "| 4 / 1 |" in text
    assert draw(tmp_path / "speed.png", shown).read_bytes().startswith(b"\x89PNG")
