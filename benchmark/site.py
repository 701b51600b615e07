"""What the site has of the code and the record: a page for each method, and answers within other pages.

`docs/hooks.py` gives both to MkDocs. They are computed anew for every build, so that a new file in `attacks/` and a new
file in the record are on the site by themselves.
"""

from collections.abc import Mapping, Sequence

from attacks.base import Attack
from benchmark.method_page import grid, index, page
from benchmark.names import known
from benchmark.registry import registered
from benchmark.tracks.board import defended, kinds, names
from benchmark.tracks.recorded import Recorded, recorded
from benchmark.tracks.track import read
from defenses.base import Defense
from leaderboard import record
from leaderboard.document import Block, markdown
from leaderboard.sentences import WORDS, defenses, priors, strongest

ROWS = "leaderboard/record"  # where the site has the record's files, as the repository does

METHODS = """\
# Methods

Every attack of the suite, with its options, its presets and what the record has of it. Every page comes from the class
of its method. *Made for* says outside of which setting a method is not defined.
"""


def tracks_recorded() -> list[Recorded]:
    """The tracks on which something is recorded, the default track first."""
    return [found for found in map(recorded, map(read, names())) if found.board]


def pages(tracks: Sequence[Recorded]) -> dict[str, str]:
    """The text of every page that nobody writes, by its path."""
    methods: Mapping[str, type[Attack]] = registered("attack")
    of_methods = {f"methods/{name}.md": page(name, method, tracks) for name, method in methods.items()}
    return {"methods/index.md": f"{METHODS}\n{index(methods)}\n", **of_methods, f"{ROWS}/index.md": rows()}


def rows() -> str:
    """The files of the record."""
    lines = (
        (each.track, each.method, str(len(each.rows)), f"[{each.path.name}]({each.path.relative_to(record.RECORD)})")
        for each in (*record.read(), *record.read_labels())
    )
    files = grid(("track", "method", "rows", "file"), lines)
    return f"# All rows\n\nThe rows of the record, as JSON lines.\n\n{files}\n"


def answers(tracks: Sequence[Recorded]) -> dict[str, str]:
    """What stands in a page for `<!-- answer: NAME -->...<!-- end -->`, by its name: from the record and the code.

    Between the marks is what a checkout shows, where nothing is computed.
    """
    boards = {each.name: each.current() for each in tracks}
    said = {
        "strongest": strongest(boards),
        "priors": priors(boards, {each.name: kinds(each) for each in tracks}),
        "defenses": defenses(boards, defended(tracks)),
    }
    classes: Mapping[str, type[Defense]] = registered("defense")
    of_defenses = [(f"`DEFENSE={made.examples[0]}`", known("defense")[name].summary) for name, made in classes.items()]
    of_metrics = [(f"`{name}`", metric.summary) for name, metric in known("metric").items()]
    return {name: without_heading(blocks) for name, blocks in said.items()} | {
        "verdicts": WORDS.replace("<", "&lt;"),
        "every defense": grid(("for example", "what it does"), of_defenses),
        "every metric": grid(("metric", "of an image"), of_metrics),
    }


def without_heading(blocks: Sequence[Block]) -> str:
    """Markdown: a page has its own headings."""
    return markdown(blocks[1:]) or "Nothing is recorded yet."
