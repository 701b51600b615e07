"""A page without scripts: its blocks once, as Markdown that GitHub shows and as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from leaderboard.table import Table, escaped

LONG = 40  # characters: a cell that is longer is broken into lines

STYLE = """
body { max-width: 72rem; }
p, li { max-width: 52rem; }
th:first-child { position: sticky; left: 0; background: var(--paper); border-right: 1px solid var(--line); }
tbody th { font-weight: 400; } thead th:first-child { background: var(--raised); }
td.long { white-space: normal; min-width: 15rem; }
.strips { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(16rem, 100%), 1fr)); gap: 0.2rem 1rem;
  margin-bottom: 0.8rem; }
.strips p { margin: 0.3rem 0; }
.strips img { display: block; width: 100%; image-rendering: pixelated; }
"""


@dataclass(frozen=True)
class Heading:
    """A heading of level 1, 2, ...; its text, if it is a name such as `cifar10-b1`, is also its anchor."""

    level: int
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Links:
    """A list of links: to other files, or by `#name` to headings."""

    targets: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Pictures:
    """Pictures with captions, from files beside the page.

    Attributes:
        pictures: caption, and path from the page.
    """

    heading: str
    pictures: Sequence[tuple[str, str]]


Block = Heading | Text | Items | Links | Pictures | Table


def markdown(blocks: Sequence[Block]) -> str:
    return "\n".join(_markdown(block) for block in blocks)


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {escaped(text)}\n"
        case Text(text):
            return f"{escaped(text)}\n"
        case Items(items):
            return "".join(f"- {escaped(item)}\n" for item in items)
        case Links(targets):
            return ", ".join(f"[{escaped(text)}]({target})" for text, target in targets) + "\n"
        case Pictures(heading, pictures):
            shown = "\n\n".join(f"{escaped(text)}\n\n![{escaped(text)}]({path})" for text, path in pictures)
            return f"{escaped(heading)}:\n\n{shown}\n"
        case Table():
            return block.markdown()


def html(blocks: Sequence[Block], style: str) -> str:
    """A whole page, light or dark as the reader's system is; the first heading is its title.

    Args:
        style: where leaderboard/page/page.css is, from the page.
    """
    title = next((block.text for block in blocks if isinstance(block, Heading)), "")
    body = "\n".join(map(_html, blocks))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{escape(style)}">
<style>
{STYLE.strip()}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f'<h{level} id="{escape(text.replace(" ", "-"))}">{escape(text)}</h{level}>'
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Items(items):
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
        case Links(targets):
            links = (f'<a href="{escape(target)}">{escape(text)}</a>' for text, target in targets)
            return f"<p>{', '.join(links)}</p>"
        case Pictures(heading, pictures):
            shown = "".join(
                f'<p>{escape(text)}<img src="{escape(path)}" alt="{escape(text)}" loading="lazy"></p>'
                for text, path in pictures
            )
            return f'<p>{escape(heading)}:</p><div class="strips">{shown}</div>'
        case Table():
            return _table(block)


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in table.columns)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(map(_cell, others))}</tr>'
        for first, *others in zip(*table.columns.values(), strict=True)
    )
    grid = f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    above, below = (f'<p class="note">{escape(text)}</p>' if text else "" for text in (table.above, table.below))
    return f'{above}<div class="scroll" role="region" aria-label="Table" tabindex="0">{grid}</div>{below}'


def _cell(text: str) -> str:
    kind = ' class="long"' if len(text) > LONG else ""
    return f"<td{kind}>{escape(text)}</td>"
