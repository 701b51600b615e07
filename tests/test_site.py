"""The site as `make site` builds it: strictly, of all methods, and without anything from elsewhere."""

import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
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


def build(folder, *more):
    """As `make site` does, by its own command."""
    pytest.importorskip("material", reason="make site installs what builds it")
    (options,) = re.findall(r"^\t.*\$\(RUN\) mkdocs (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    command = [sys.executable, "-m", "mkdocs", *shlex.split(options), *more]
    surroundings = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, "--site-dir", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def hooks():
    pytest.importorskip("mkdocs", reason="make site installs it")
    spec = spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def links(page):
    parser = Links()
    parser.feed(page.read_text())
    return parser


def test_every_link_of_a_page_leads_to_a_file_in_a_checkout_too():
    """What the site alone has is linked by the file that it is made from."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    led = {(page, url.split("#")[0]) for page in pages for url in re.findall(r"\]\(([^)\s]+)\)", page.read_text())}
    assert len(led) > 80
    assert not [(page.name, url) for page, url in led if "://" not in url and not (page.parent / url).exists()]


def test_what_is_computed_for_the_site_leads_to_where_it_is_in_a_checkout():
    asked = {
        (page.name, name): text
        for page in (ROOT / "docs").glob("*.md")
        for name, text in re.findall(r"<!-- answer: (.*?) -->(.*?)<!-- end -->", page.read_text(), re.DOTALL)
    }
    assert len(asked) > 5
    assert not [place for place, text in asked.items() if place[1] != "verdicts" and "](" not in text]
    for page in (page for page, name in asked if name in ("strongest", "defenses")):
        assert (page, "verdicts") in asked


@pytest.mark.slow
def test_a_dead_link_ends_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "mkdocs.yml").write_text("site_name: x\n")
    for text, code in (("[here](index.md)", 0), ("[nowhere](nowhere.md)", 1)):
        (tmp_path / "docs" / "index.md").write_text(text)
        assert build(tmp_path).returncode == code


def test_an_answer_that_nobody_gives_is_named(hooks):
    page = SimpleNamespace(file=SimpleNamespace(src_path="x.md"))
    config = SimpleNamespace(extra={"answers": {"strongest": "ci_net"}})

    def shown(text):
        return hooks.on_page_markdown(text, page=page, config=config, files=None)

    assert shown("a <!-- answer: strongest -->[b](c)\n<!-- end --> d") == "a ci_net d"
    with pytest.raises(hooks.PluginError, match=r"x\.md: no answer 'strngest'; there are strongest"):
        shown("<!-- answer: strngest --><!-- end -->")
    assert shown("[`idlg`](../attacks/dlg.py), [b](../README.md#c)") == "[`idlg`](methods/idlg.md), [b](index.md#c)"


def test_the_page_of_a_notebook_says_that_its_results_are_not_there(hooks):
    found = [path for path in hooks.own_pages() if path.startswith("notebooks/")]
    assert len(found) == 2
    assert all("This page shows no results" in hooks.own_pages()[path] for path in found)


def test_a_page_is_named_where_the_navigation_has_its_whole_path(hooks):
    nav = [{"Home": "index.md"}, {"Start": ["choose-a-defense.md", {"More": ["a.md"]}]}]
    assert list(hooks.paths(nav)) == ["index.md", "choose-a-defense.md", "a.md"]


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
