"""What MkDocs calls while it builds the site: pages of methods, answers of the record, and files beside `docs/`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from benchmark import site
from benchmark.names import ROOT
from leaderboard.record import RECORD

NOTEBOOKS = ROOT / "notebooks"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Computes what the site shows, and lists in the navigation the methods, and pages that it does not name."""
    tracks = site.tracks_recorded()
    config.extra["pages"], config.extra["answers"] = site.pages(tracks) | own_pages(), site.answers(tracks)
    named = Path(config.config_file_path).read_text()
    more = {
        "Methods": [path for path in config.extra["pages"] if path.startswith("methods/")],
        "Use it": sorted(path.name for path in Path(config.docs_dir).glob("*.md") if path.name not in named),
    }
    for entry in config.nav or []:
        for heading, pages in more.items():
            if heading in entry:
                entry[heading] += pages
    return config


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

    return "\n\n".join(parts()) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are written by nobody, and the files of the record."""
    for path, text in config.extra["pages"].items():
        files.append(File.generated(config, path, content=text))
    for file in (path for path in RECORD.rglob("*") if path.is_file()):
        files.append(File.generated(config, file.relative_to(ROOT).as_posix(), abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts answers where they are asked for, and turns what GitHub shows of the board into what MkDocs shows.

    Its links from `docs/` to the record lead to where the site has it, and what it folds is Markdown and open.
    """
    text = re.sub(r"<!-- answer: (.*) -->", lambda found: config.extra["answers"][found[1]], markdown)
    text = text.replace("<details>", '<details markdown="1" open>')
    text = text.replace("../../leaderboard/record)", "../../leaderboard/record/index.md)")
    return text.replace("../../leaderboard/", "../leaderboard/")
