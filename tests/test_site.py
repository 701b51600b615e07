"""The site as `make site` builds it: strictly, of all methods, and without anything from elsewhere."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from benchmark.names import known

ROOT = Path(__file__).resolve().parents[1]


class Links(HTMLParser):
    """What a page loads, and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded, self.led = [], []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("script", "img", "link") and (url := given.get("src") or given.get("href")):
            self.loaded.append(url)
        if tag == "a" and given.get("href"):
            self.led.append(given["href"])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("material", reason="make site installs what builds it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    surroundings = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def links(page):
    parser = Links()
    parser.feed(page.read_text())
    return parser


@pytest.mark.slow
def test_a_page_for_every_method(built):
    assert {f"{name}.html" for name in known("attack")} < {path.name for path in (built / "methods").iterdir()}
    ig = (built / "methods" / "ig.html").read_text()
    assert "Geiping" in ig
    assert "total_variation" in ig


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere_and_every_link_leads_to_a_file(built):
    pages = [path for path in built.rglob("*.html") if path.name != "404.html"]
    assert len(pages) > len(known("attack"))
    for page in pages:
        found = links(page)
        assert not [url for url in found.loaded if urlsplit(url).netloc], page
        for url in [*found.loaded, *found.led]:
            parts = urlsplit(url)
            if not parts.scheme and parts.path:
                assert (page.parent / unquote(parts.path)).is_file(), f"{page}: {url}"


@pytest.mark.slow
def test_no_page_shows_what_stands_for_something_else(built):
    """Answers and sections of other files are filled in, and Markdown is no text."""
    for page in built.rglob("*.html"):
        text = page.read_text()
        assert "<!-- answer" not in text, page
        assert "![" not in text, page
        assert "8<-- " not in text.replace("<!-- --8<-- [", ""), page
