"""An audit for a CI server: JUnit XML with a suite for each defense and a test case for each image."""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from benchmark.audit.verdicts import NOT_JUDGED


def junit(report: Mapping[str, Any]) -> str:
    """The XML: an image fails from the verdict on that the gate names; one that was not judged is skipped."""
    images = report["images"]
    root = ElementTree.Element("testsuites", {"name": "gibench audit", **totals(images, report["gate"]["not_judged"])})
    for defense in report["defenses"]:
        own = [image for image in images if image["defense"] == defense["defense"]]
        suite = ElementTree.SubElement(
            root, "testsuite", {"name": f"audit, defense {defense['defense']}", **totals(own)}
        )
        for image in own:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=f"audit.{image['defense']}",
                name=image["image"],
                time=f"{own_seconds(image, own):.3f}",
            )
            if image["fails"]:
                failure = ElementTree.SubElement(case, "failure", message=image["says"], type=image["verdict"])
                failure.text = f"{image['says']} The gate is FAIL_ON={report['gate']['fail_on']}."
            elif image["verdict"] == NOT_JUDGED:
                ElementTree.SubElement(case, "skipped", message=image["says"])
            else:
                ElementTree.SubElement(case, "system-out").text = image["says"]
    for defense in report["gate"]["not_judged"]:
        counts = {"tests": "1", "failures": "0", "errors": "1", "skipped": "0", "time": "0.000"}
        suite = ElementTree.SubElement(root, "testsuite", {"name": f"audit, defense {defense}, not judged", **counts})
        case = ElementTree.SubElement(suite, "testcase", classname=f"audit.{defense}", name="any image", time="0.000")
        ElementTree.SubElement(case, "error", message=f"No image could be judged under {defense}.")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def totals(images: Sequence[Mapping[str, Any]], not_judged: Sequence[str] = ()) -> dict[str, str]:
    return {
        "tests": str(len(images) + len(not_judged)),
        "failures": str(sum(image["fails"] for image in images)),
        "errors": str(len(not_judged)),
        "skipped": str(sum(image["verdict"] == NOT_JUDGED for image in images)),
        "time": f"{sum(own_seconds(image, images) for image in images):.3f}",
    }


def own_seconds(image: Mapping[str, Any], images: Sequence[Mapping[str, Any]]) -> float:
    """An equal share of the seconds of its update, whose images are attacked together."""
    update = (image["defense"], image["task"])
    return float(image["seconds"]) / sum((other["defense"], other["task"]) == update for other in images)
