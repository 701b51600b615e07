"""The files of an audit: JSON by its schema, JUnit as an XML parser reads it, one page that loads nothing."""

import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from PIL import Image

from benchmark.audit import audit as module
from benchmark.audit.estimate import Attempt, Under
from benchmark.audit.junit import junit
from benchmark.audit.page import Pictures, page
from benchmark.audit.plan import Plan
from benchmark.audit.report import SCHEMA_VERSION, images_of, not_tried, noticed, of_defenses, of_labels, of_plan, scale
from benchmark.audit.verdicts import ORDER, Shown
from benchmark.names import known

SCHEMA = json.loads(Path(module.__file__).with_name("audit.schema.json").read_text())


def png(color):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(stream, "PNG")
    return stream.getvalue()


def results(psnr, **more):
    row = {"psnr": psnr, "ssim": 0.8, "iip": 1.0, "status": "ok", "degenerate": False, "label": 0, "task": "t-1"}
    row |= {"restarts": 1, "steps": 9, "gradient_evaluations": 9, "seconds": 2.5, **more}
    control = {**row, "psnr": 8.0, "ssim": 0.1, "iip": 0.0}
    return [
        Shown("ig", {**row, "control": "none"}, b""),
        Shown("ig", {**control, "control": "shuffled_update"}, b""),
    ]


@pytest.fixture
def report():
    """Of three images under two defenses: one recognisable, one not judged, the others not rebuilt."""
    shown = {("none", "a<b"): results(25.0), ("none", "k"): results(25.0, degenerate=True)}
    shown |= {("noise:0.1", image): results(8.5, ssim=0.1) for image in ("a<b", "k")}
    images = images_of(
        shown, {key: {"psnr": 11.0, "ssim": 0.2} for key in ("a<b", "k")}, ["cat"], "recognisable", lambda *_: False
    )
    plan = Plan(
        2,
        2,
        12.0,
        [Attempt("ig", {d: Under(s, 9, 1, "cifar10-b1") for d, s in {"none": 0.25, "noise:0.1": 0.75}.items()}, 20.0)],
        [],
    )
    row = {"defense": "none", "label_method": "llg", "counts": 1.0, "existence": 0.5}
    return {
        "schema_version": SCHEMA_VERSION,
        "code": "0",
        "gate": {"fail_on": "recognisable", "passed": False, "failures": 1, "judged": 3, "not_judged": []},
        "warning": "",
        "n": 2,
        "attacks": ["ig"],
        "setting": {"model": "my.model", "local training": "none"},
        "contents": {"victim_digest": "x"},
        "budget": {
            "minutes": 3.0,
            "tasks": 2,
            "processes": 2,
            "estimated_seconds": 12.0,
            "seconds": 14.0,
            "resumed": False,
        },
        "scale": scale(),
        "defenses": of_defenses(images),
        "images": images,
        "labels": of_labels([row, {**row, "counts": 0.0}]),
        "plan": of_plan(plan, {("ig", "none"): 9.0}),
        "not_tried": [{"attack": "rgap", "defense": "", "reason": "no chain <of> layers"}],
        "notices": [],
    }


def test_the_report_has_its_schema(report):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(report, SCHEMA)
    assert SCHEMA["$defs"]["verdict"]["enum"] == [*ORDER]
    assert report["labels"] == [{"defense": "none", "method": "llg", "n": 2, "counts": 0.5, "existence": 0.5}]
    assert [line["seconds"] for line in report["plan"]] == [9.0, None]


def test_what_was_left_out_is_said_with_its_reason_but_not_with_options_of_another_command():
    left_out = [("ig", "sign", "it needs more; run with --adapt false."), ("gi", "", "one; two"), ("dlg", "", "none.")]
    found = not_tried(left_out, [name for name in known("attack") if name != "rgap"], ["none", "sign"])
    assert [each["reason"] for each in found] == ["it needs more", "one; two", "none.", "not asked for"]
    assert [(each["attack"], each["defense"]) for each in found] == [
        ("ig", "sign"),
        ("gi", ""),
        ("dlg", ""),
        ("rgap", ""),
    ]


def test_what_was_left_out_for_one_reason_is_one_line():
    left_out = [*(("lti", each, "of 4") for each in "abc"), *(("spear", each, "no answer") for each in "bc")]
    found = not_tried(left_out, [*known("attack")], ["a", "b", "c"])
    assert [tuple(each.values()) for each in found] == [("lti", "", "of 4"), ("spear", "b, c", "no answer")]


def test_what_was_said_of_several_tasks_is_one_line_that_names_images():
    rows = [{"task": f"t-{n // 2}", "image": f"{n}.png"} for n in range(8)]
    said = [*(f"t-{n}: it is certain" for n in (2, 0, 0)), "t-1: it is lost", "slow: so it is", "slow: so it is"]
    assert noticed(said, rows) == [
        "slow: so it is",
        "0.png, 1.png, 4.png and 1 more: it is certain",
        "2.png, 3.png: it is lost",
    ]


@pytest.mark.parametrize("wrong", [{"schema_version": 2}, {"n": -1}, {"more": 1}, {"images": [{}]}])
def test_the_schema_refuses_what_is_no_report(report, wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report | wrong, SCHEMA)


def test_a_ci_server_reads_one_test_case_for_each_image_and_defense(report):
    """Under each defense the two images are one update of 2.5 s."""
    root = ElementTree.fromstring(junit(report))
    assert root.attrib | {"tests": "4", "failures": "1", "skipped": "1", "errors": "0", "time": "5.000"} == root.attrib
    assert [suite.get("name") for suite in root] == ["audit, defense none", "audit, defense noise:0.1"]
    assert [suite.get("failures") for suite in root] == ["1", "0"]
    cases = {(case.get("classname"), case.get("name")): case for case in root.iter("testcase")}
    assert cases.keys() == {(f"audit.{defense}", image) for defense in ("none", "noise:0.1") for image in ("a<b", "k")}
    (failure,) = cases["audit.none", "a<b"]
    assert (failure.tag, failure.get("type")) == ("failure", "recognisable")
    assert failure.get("message").startswith("Recognisable: rebuilt by ig with 25.0 dB")
    assert failure.text.endswith("The gate is FAIL_ON=recognisable.")
    assert [each.tag for each in cases["audit.none", "k"]] == ["skipped"]
    assert [each.tag for each in cases["audit.noise:0.1", "k"]] == ["system-out"]


def test_the_page_is_one_file_with_all_that_was_found(report):
    truths = {"a<b": png("red"), "k": png("blue")}
    pictures = {(image["defense"], image["image"]): Pictures(png("red"), png("green")) for image in report["images"]}
    text = page(report, truths, pictures)
    assert text == page(report, truths, pictures)
    loaded = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\'\s>)]{0,30})', text)
    assert {address.partition(",")[0] for address in loaded} == {"data:image/png;base64", "#defense-1", "#defense-2"}
    assert "<script" not in text
    assert "a<b" not in text
    assert "no chain &lt;of&gt; layers" in text
    assert "Failed." in text
    assert "1 of 3 judged results" in text
    assert "@media print" in text
    for image in report["images"]:
        assert image["says"].replace("'", "&#39;") in text
    assert "not done" in text
