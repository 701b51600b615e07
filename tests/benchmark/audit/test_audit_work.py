"""The work of an audit: exit codes, going on after a stop, several processes, and what was not reached."""

import importlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from PIL import Image

from attacks.ig import IG
from benchmark.__main__ import main
from benchmark.audit import audit as audit_module
from benchmark.audit import plan, work
from benchmark.audit.work import NOT_REACHED, Done, Job, do, finished, results_of
from benchmark.config import Config
from leaderboard.rows import read_rows
from tests.benchmark.audit.test_audit_outputs import SCHEMA
from victims.errors import InputError

SLEEP = 0.02  # seconds


class Slow(IG):
    """Ten steps of IG, each of which takes long."""

    def __init__(self, *, steps_x=10, **options):
        super().__init__(steps_x=steps_x, **options)

    def distance(self, dummy, received):
        time.sleep(SLEEP)
        return super().distance(dummy, received)


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.setenv("GIBENCH_OFFLINE", "1")
    monkeypatch.setattr(plan, "MOST", 10)
    random = np.random.default_rng(0)
    for place in range(6):
        folder = tmp_path / "mine" / "abc"[place % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{place}.png")
    return tmp_path / "mine"


def audited(images, out, *options):
    given = {"model": "fcn:64", "images": images, "size": 16, "most": 2, "minutes": 5, "processes": 1, "out": out}
    given |= dict(option.removeprefix("--").split("=", 1) for option in options)
    return main(["audit", *(f"--{name}={value}" for name, value in given.items())])


def report_in(out):
    report = json.loads((out / "audit.json").read_text())
    jsonschema.validate(report, SCHEMA)
    return report


def test_an_image_that_a_closed_form_solves_fails_the_gate(images, tmp_path, capsys):
    """`spear` finds the single image behind a layer of 64 neurons exactly, and knows it; it has no answer to noise."""
    out = tmp_path / "out"
    options = ["--attacks=spear", "--defense=none,noise:0.1"]
    assert audited(images, out, *options, "--fail-on=recognisable") == 1
    assert not report_in(out)["gate"]["passed"]
    said = capsys.readouterr().out
    assert "verdict  under none: 2 exact, of 2 images" in said
    assert "gate     failed: 2 of 2 judged results are recognisable or worse" in said
    report = report_in(out)
    assert {(image["defense"], image["verdict"], image["certified"]) for image in report["images"]} == {
        ("none", "exact", True)
    }
    assert ("spear", "noise:0.1") in {(each["attack"], each["defense"]) for each in report["not_tried"]}
    assert {each["method"] for each in report["labels"]} >= {"ilrg", "idlg"}
    root = ElementTree.parse(out / "junit.xml").getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "2", "1")
    assert report["gate"]["not_judged"] == ["noise:0.1"]
    assert [suite.get("name") for suite in root if suite.get("errors") == "1"] == [
        "audit, defense noise:0.1, not judged"
    ]
    assert audited(images, out, *options) == 2  # without a gate; the same run
    assert "no image could be judged under noise:0.1; give more --minutes" in capsys.readouterr().err


def test_a_stopped_audit_goes_on_and_what_changed_is_measured_anew(images, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    options = [f"--attacks={__name__}.Slow", "--lr=0.1", "--epochs=2", "--batch=2", "--clients=2", "--know-labels=no"]
    options += ["--most=2"]
    jobs = []

    def stopped(job):
        if len(jobs) == 2:
            raise KeyboardInterrupt
        jobs.append(job)
        return do(job)

    monkeypatch.setattr(work, "do", stopped)
    with pytest.raises(KeyboardInterrupt):
        audited(images, out, *options)
    assert not (out / "audit.json").exists()
    (done,) = (out / "runs").glob("*/rows.jsonl")
    before = done.read_bytes()

    monkeypatch.setattr(work, "do", do)
    again = audit_module.make_plan
    monkeypatch.setattr(audit_module, "make_plan", None)  # the plan that was kept counts
    assert audited(images, out, *options) == 0
    assert done.read_bytes() == before
    assert len(list((out / "runs").glob("*/rows.jsonl"))) == 2
    rows, _ = read_rows(done)
    assert {(row["clients"], row["epochs"], row["lr"], row["label_method"]) for row in rows} == {(2, 2, 0.1, "ilrg")}
    report = report_in(out)
    assert "the mean of 2 clients" in report["setting"]["local training"]
    assert report["setting"]["labels of the batch"].endswith("by ilrg")
    of_slow = [each for each in report["plan"] if each["attack"].endswith("Slow")]
    assert report["budget"]["tasks"] == 1

    monkeypatch.setattr(audit_module, "make_plan", again)
    Image.new("RGB", (16, 16), "red").save(next(images.glob("*/0.png")))
    assert audited(images, out, *options) == 0
    assert len(list((out / "runs").glob("*/rows.jsonl"))) == 4  # both runs in folders of their own
    assert done.read_bytes() == before
    assert report_in(out)["contents"]["data_digest"] != report["contents"]["data_digest"]

    (line,) = of_slow
    assert line["estimated_seconds"] / 3 < line["seconds"] < 3 * line["estimated_seconds"] + 1


@pytest.mark.slow
def test_two_processes_do_what_one_does(images, tmp_path, capsys, monkeypatch):
    """In folders of one name, of which the names of tasks are made, and with them the starts."""
    options = [f"--attacks={__name__}.Slow", "--defense=none,sign"]
    rows = []
    for processes in (1, 2):
        (tmp_path / str(processes)).mkdir()
        monkeypatch.chdir(tmp_path / str(processes))
        out = Path("audit")
        assert audited(images, out, *options, f"--processes={processes}") == 0
        found = [row for file in (out / "runs").glob("*/rows.jsonl") for row in read_rows(file)[0]]
        key = ("defense", "control", "image", "psnr", "cost")
        rows.append(sorted(tuple(row[name] for name in key) for row in found))
    assert len(rows[0]) == 2 * 2 * 2
    assert rows[0] == rows[1]
    assert "audit    6 of 6: " in capsys.readouterr().out


@pytest.mark.slow
def test_sigterm_ends_all_processes_of_an_audit_at_once(images, tmp_path):
    here, out = "tests.benchmark.audit", tmp_path / "out"
    options = [f"--model={here}.test_audit:Tiny", f"--attacks={here}.test_audit_work.Slow", f"--images={images}"]
    command = [sys.executable, "-m", "benchmark", "audit", *options, "--minutes=10", "--processes=2", f"--out={out}"]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as audit:
        assert any("audit    1 of " in line for line in audit.stdout)
        while audit.poll() is None and not [*out.glob("runs/*/config.yaml")]:
            time.sleep(0.1)
        time.sleep(5)  # until its steps run, under Lightning's handler
        audit.send_signal(signal.SIGTERM)
        assert audit.wait(timeout=20) == 143


def job(attack="ig", control="none", defense="none"):
    return Job(attack, Config(attack="ig", preset="default", defense=defense, control=control), 1.0)


@pytest.mark.slow
def test_several_processes_begin_nothing_after_the_time_but_controls():
    """What is refused in no time stands for work; the labels of no data set."""
    jobs = [job(), job(control="shuffled_update"), job(), job(control="shuffled_update")]
    jobs = [Job("ig", replace(each.config, data="nowhere"), 1.0) for each in jobs]
    done = dict(finished(jobs, 2, time.monotonic() + 60))
    assert sorted(done) == [0, 1, 2, 3]
    assert all("nowhere" in result.why for result in done.values())
    cut = dict(finished(jobs * 20, 3, time.monotonic() + 0.5))  # three are begun before their processes are there
    assert sorted(cut) == [0, 1, 2, 3]  # and the control of the last one
    assert not [*finished(jobs, 2, time.monotonic() - 1)]


@pytest.mark.parametrize(
    ("error", "why"),
    [(InputError("no such layer."), "no such layer."), (RuntimeError("it\nbroke"), "broken: RuntimeError: it broke")],
)
def test_an_attack_that_breaks_stops_no_other_one(error, why, monkeypatch, capsys):
    def fail(config):
        print("the table of a run")
        raise error

    monkeypatch.setattr(work, "run", fail)
    done = do(job())
    assert (done.why, done.rows) == (why, ())
    assert capsys.readouterr().out == ""


def test_a_file_that_an_author_opens_in_vain_stops_no_other_one(monkeypatch, tmp_path):
    """Written where it is not taken for this suite's own, as an author's code is not."""
    (tmp_path / "vain.py").write_text("def run(config):\n    open('/nowhere/weights')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(work, "run", importlib.import_module("vain").run)
    why = do(job()).why
    assert why.startswith("broken: FileNotFoundError: ")
    assert why.endswith("vain.py:2)")
    monkeypatch.setattr(work, "run", lambda config: Path("/nowhere/rows").read_bytes())
    with pytest.raises(FileNotFoundError):
        do(job())


def test_a_full_disk_stops_all(monkeypatch):
    monkeypatch.setattr(work, "run", lambda config: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        do(job())


def test_nothing_is_begun_after_the_time_is_spent(monkeypatch):
    monkeypatch.setattr(work, "do", lambda job: Done())
    assert [place for place, _ in finished([job(), job()], 1, time.monotonic() + 60)] == [0, 1]
    assert [*finished([job(), job()], 1, time.monotonic() - 1)] == []
    spent = finished(jobs := [job(), job(control="shuffled_update"), job()], 1, time.monotonic() + 0.5)
    places = [next(spent)[0]]
    time.sleep(0.6)
    assert [*places, *(place for place, _ in spent)] == [0, 1]  # the control of what was begun, and nothing else
    assert len(jobs) == 3


def test_an_attack_without_its_control_shows_nothing(monkeypatch):
    monkeypatch.setattr(Done, "picture", lambda done, row: b"")
    row = {"image": "a", "control": "none"}
    done = [(job(), Done(rows=[row], seconds=2.0)), (job(control="shuffled_update"), NOT_REACHED)]
    both = [(job("gi"), Done(rows=[row], seconds=2.0)), (job("gi", "shuffled_update"), Done(rows=[row], seconds=1.0))]
    shown, took, not_done = results_of([*done, *both])
    assert not_done == [("ig", "none", "not reached: the time was spent")]
    assert [each.attack for each in shown["none", "a"]] == ["gi", "gi"]
    assert took == {("gi", "none"): 3.0}


def test_every_process_has_a_gpu_of_its_own_where_there_are_any(monkeypatch):
    monkeypatch.setattr(work, "torch", SimpleNamespace(cuda=SimpleNamespace(device_count=lambda: 2)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [work.gpu(place) for place in range(3)] == ["4", "6", "4"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [work.gpu(place) for place in range(2)] == ["0", "1"]
    monkeypatch.setattr(work, "torch", SimpleNamespace(cuda=SimpleNamespace(device_count=lambda: 0)))
    assert work.gpu(0) == ""
