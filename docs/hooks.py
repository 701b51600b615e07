"""What MkDocs calls while it builds the site: pages of methods, answers of the record, and files beside `docs/`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from benchmark import site
from benchmark.names import ROOT
from leaderboard.record import RECORD

NOTEBOOKS = ROOT / "notebooks"
LINKS = {
    r"\[`(\w+)`\]\(\.\./attacks/\w+\.py\)": r"[`\1`](methods/\1.md)",  # a file may have several attacks
    r"\]\(\.\./attacks\)": "](methods/index.md)",
    r"\]\(\.\./README\.md": "](index.md",
    r"\]\(\.\./notebooks/(\w+)\.ipynb\)": r"](notebooks/\1.md)",
}
"""Of what a page in `docs/` leads to in a checkout: what has it on the site."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Computes what the site shows, and lists in the navigation the methods, and pages that it does not name."""
    tracks = site.tracks_recorded()
    config.extra["pages"], config.extra["answers"] = site.pages(tracks) | own_pages(), site.answers(tracks)
    named = set(paths(config.nav))
    more = {
        "Methods": [path for path in config.extra["pages"] if path.startswith("methods/")],
        "Use it": sorted(path.name for path in Path(config.docs_dir).glob("*.md") if path.name not in named),
    }
    for entry in config.nav or []:
        for heading, pages in more.items():
            if heading in entry:
                entry[heading] += pages
    return config


def paths(nav: Any) -> Iterator[str]:
    """Of the pages that the navigation names, at any depth."""
    if isinstance(nav, str):
        yield nav
    for entry in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from paths(entry)


def own_pages() -> dict[str, str]:
    """The README as the first page, and the notebooks."""
    readme = (ROOT / "README.md").read_text().replace("](docs/", "](").replace("](CONTRIBUTING.md)", "](own.md)")
    return {"index.md": readme} | {f"notebooks/{path.stem}.md": notebook(path) for path in NOTEBOOKS.glob("*.ipynb")}


def notebook(path: Path) -> str:
    """Its cells as Markdown."""

    def parts() -> Iterator[str]:
        for cell in json.loads(path.read_text())["cells"]:
            text = "".join(cell["source"])
            yield f"```python\n{text}\n```" if cell["cell_type"] == "code" else text

    first, *rest = parts()
    run = f"This page shows no results: `notebooks/{path.name}` is the notebook that you run to see them."
    return "\n\n".join([first, run, *rest]) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are written by nobody, and the files of the record."""
    for path, text in config.extra["pages"].items():
        files.append(File.generated(config, path, content=text))
    for file in (path for path in RECORD.rglob("*") if path.is_file()):
        files.append(File.generated(config, file.relative_to(ROOT).as_posix(), abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts answers in place of what a checkout shows there, and turns what GitHub shows into what MkDocs shows.

    The board's links from `docs/` to the record lead to where the site has it, and what it folds is Markdown and open.
    """
    answers = config.extra["answers"]

    def answer(found: re.Match[str]) -> str:
        if found[1] not in answers:
            raise PluginError(f"{page.file.src_path}: no answer '{found[1]}'; there are {', '.join(answers)}.")
        return str(answers[found[1]])

    text = re.sub(r"<!-- answer: (.*?) -->.*?<!-- end -->", answer, markdown, flags=re.DOTALL)
    for link, on_the_site in LINKS.items():
        text = re.sub(link, on_the_site, text)
    text = text.replace("<details>", '<details markdown="1" open>')
    text = text.replace("../../leaderboard/record)", "../../leaderboard/record/index.md)")
    return text.replace("../../leaderboard/", "../leaderboard/")
