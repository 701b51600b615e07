"""The check of a GPU machine, tried on the CPU: it runs from end to end, and says what fails, hangs or is missing."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu_check import __main__ as check
from tests.gpu_check.__main__ import Part, ended, exit_code, main, of_tests, parts, table
from tests.gpu_check.missing import NotInstalled, stand_in
from tests.gpu_check.packages import OTHERS, WITHOUT, absent
from tests.gpu_check.report import Finding, read
from tests.gpu_check.speed import compiled
from tests.speed.cells import Cell


@pytest.mark.slow
def test_all_parts_run_on_a_cpu(tmp_path, capsys):
    assert main(["--device", "cpu", "--quick", "--out", str(tmp_path)]) == 0
    findings = [Finding(**each) for each in json.loads((tmp_path / "gpu-check.json").read_text())]
    held = {finding.what: finding.held for finding in findings}
    assert held["every attack finds what it finds on the cpu"]
    assert held["two runs are equal bit by bit"]
    assert held["several processes on one device find the same"]
    told = " ".join(finding.what for finding in findings)
    assert all(part in told for part in ("published cell", "2 tasks together", "gifd"))
    assert "1: the limit is one of CUDA" in next(f.found for f in findings if f.what == "skipped")
    assert "All held." in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_one_line_says_so(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def part(tmp_path):
    """One that has written a finding and half of another, and then runs some Python."""

    def make(name: str, code: str, seconds: float) -> Part:
        file = tmp_path / f"{name}.jsonl"
        text = json.dumps({"what": "a", "found": "b", "held": True}) + '\n{"what": "h'
        write = f"import pathlib, time; pathlib.Path({str(file)!r}).write_text({text!r}); {code}"
        return Part(name, ["timeit", "-n1", "-r1", write], seconds, file)

    return make


def test_what_hangs_or_dies_is_reported_as_far_as_it_came(part):
    hangs, dies = part("speed", "time.sleep(100)", 12), part("paper", "raise ValueError", 60)
    assert ended([hangs, dies], "cpu") == [
        Finding("a", "b", True),
        Finding("speed: time", "did not end in 12 s", ended=False),
        Finding("a", "b", True),
        Finding("paper: exit code", "1; see its log", False),
    ]


def test_failures_and_skips_are_named(tmp_path):
    lines = [
        {"test": "tests/a.py::test_one_thing[x]", "outcome": "passed", "why": ""},
        {"test": "tests/a.py::test_one_thing[y]", "outcome": "failed", "why": "E  far off"},
        {"test": "tests/a.py::test_other", "outcome": "skipped", "why": "Skipped: needs cma"},
    ]
    file = tmp_path / "tests.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = of_tests(file)
    assert found == [
        Finding("one thing", "1 passed, 1 failed", False),
        Finding("other", "1 skipped", None),
        Finding("skipped", "1: needs cma"),
        Finding("a.py::test_one_thing[y]", "E  far off", False),
    ]
    assert "2 did not hold, 0 did not end." in table(found, 1.0).text()
    assert of_tests(tmp_path / "none") == read(tmp_path / "none") == []


def test_a_package_that_is_not_there_has_a_stand_in(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    assert stand_in(["json", "a_package_of_nobody"]) == ["a_package_of_nobody"]
    found = importlib.import_module("a_package_of_nobody.part")
    with pytest.raises(NotInstalled, match="needs a_package_of_nobody, which is not installed"):
        found.Thing(1, size=2)


def test_the_parts_have_eight_minutes(tmp_path):
    tests, paper, speed = parts(tmp_path, Path("data"), quick=False, xdist=True)
    assert max(tests.seconds, paper.seconds) + speed.seconds <= 8 * 60 - 30  # the imports of the check itself
    assert "tests/attacks/engine/test_compiled.py" in tests.arguments


def test_what_did_not_end_is_told_apart_from_what_did_not_hold():
    good, late, bad = Finding("a", "b", True), Finding("paper", "5 of 9 steps", ended=False), Finding("c", "d", False)
    assert [exit_code(found) for found in ([good], [good, late], [good, late, bad])] == [0, 3, 1]
    text = table([good, late], 1.0).text()
    assert "paper  did not end  5 of 9 steps" in text
    assert "0 did not hold, 1 did not end." in text


@pytest.mark.parametrize("seconds", [-1.0, 0.01])
def test_slow_compiling_did_not_end(monkeypatch, tmp_path, seconds):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = compiled(Cell("ig", "lenet", 1, 1, 32), 0.1, seconds)
    assert (found.held, found.ended) == (None, False)
    assert found.found.startswith("did not end: ")


def test_every_requirement_is_needed_or_says_what_is_skipped_without_it(monkeypatch):
    assert set(absent()) <= set(WITHOUT)  # this test runs where all that is needed is installed
    monkeypatch.setattr("tests.gpu_check.packages.missing", lambda name: True)
    packages = absent()
    assert {"torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "pytest"} <= {*packages} - {*WITHOUT}
    assert {*WITHOUT} <= {*packages}
    assert not {*OTHERS} & {*packages}


def test_packages_that_are_not_installed_are_named_first(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(check, "ended", lambda parts, device: [])
    monkeypatch.setattr(check, "absent", lambda: ["timm", "hypothesis"])
    assert main(["--device", "cpu", "--out", str(tmp_path)]) == 0
    first = "packages not installed: timm (skipped: its models and ImageNet's names), hypothesis (skipped: nothing)"
    assert capsys.readouterr().out.splitlines()[0] == first
    monkeypatch.setattr(check, "absent", lambda: ["torchmetrics", "cma", "scikit-image"])
    assert main(["--device", "cpu", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.err == "gpu-check: not installed and needed: torchmetrics, scikit-image; install them first.\n"
    assert not said.out
