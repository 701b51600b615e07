"""The page of an audit: one HTML file that loads nothing, and that prints."""

import base64
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from benchmark.audit.report import duration
from leaderboard.sentences import count


class Pictures(NamedTuple):
    """PNGs of an image under a defense: rebuilt by the attack of the verdict, and by the same attack without it."""

    rebuilt: bytes
    control: bytes


def page(report: Mapping[str, Any], truths: Mapping[str, bytes], pictures: Mapping[tuple[str, str], Pictures]) -> str:
    """The page of a report, as `audit.json` has it.

    Args:
        truths: by image, the picture (PNG).
        pictures: by defense and image.
    """
    return template().render(report=report, truths=truths, pictures=pictures)


@cache
def template() -> Template:
    environment = Environment(
        loader=PackageLoader("benchmark.audit", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"data": data, "duration": duration}
    environment.globals["count"] = count
    return environment.get_template("page.html")


def data(png: bytes) -> str:
    """The address of a picture that lies inside the page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
