"""A page of blocks, as Markdown and as HTML: nothing in it becomes markup, and both have the same content."""

import re

from leaderboard.document import Heading, Items, Links, Pictures, Text, html, markdown
from leaderboard.table import Table

BLOCKS = [
    Heading(1, "A <page>"),
    Text("p < .05 | [a](b)"),
    Items(["one", "two & three"]),
    Links([("easy", "#easy"), ("rows", "../rows")]),
    Heading(3, "easy"),
    Table("", {"attack": ["ig", "gi"], "why": ["x" * 41, "<b>"]}),
    Pictures("Pictures", [("ig", "../record/ig.webp")]),
]


def test_markdown_of_every_block():
    assert markdown(BLOCKS) == "\n".join(
        [
            "# A &lt;page&gt;\n",
            "p &lt; .05 \\| [a]\\(b)\n",
            "- one\n- two &amp; three\n",
            "[easy](#easy), [rows](../rows)\n",
            "### easy\n",
            f"| attack | why |\n| --- | --- |\n| ig | {'x' * 41} |\n| gi | &lt;b&gt; |\n",
            "Pictures:\n\nig\n\n![ig](../record/ig.webp)\n",
        ]
    )


def test_html_of_every_block():
    page = html(BLOCKS, "../page.css")
    assert "<title>A &lt;page&gt;</title>" in page
    assert "<li>two &amp; three</li>" in page
    assert '<a href="#easy">easy</a>' in page
    assert '<h3 id="easy">' in page
    assert '<tr><th scope="row">gi</th><td>&lt;b&gt;</td></tr>' in page
    assert f'<td class="long">{"x" * 41}</td>' in page
    assert '<img src="../record/ig.webp" alt="ig" loading="lazy">' in page
    assert '<link rel="stylesheet" href="../page.css">' in page


def test_the_page_takes_nothing_from_elsewhere():
    page = html(BLOCKS, "../page.css")
    assert "<script" not in page
    assert not re.findall(r"https?:|@import|url\(", page)
