"""The pages of methods: all that a reader of the site must know, from the classes alone."""

import sys
from importlib import import_module

import pytest

from attacks.engine.space import Between
from benchmark import site
from benchmark.method_options import options_of
from benchmark.method_page import bounds, grid, meanings, page, without_html
from benchmark.names import known
from benchmark.registry import find, registered
from benchmark.tracks.board import table
from benchmark.tracks.recorded import recorded
from benchmark.tracks.track import read
from benchmark.tracks.tuned import read_tuned

OWN = '''\
"""Mine: Me, *A paper*, 2030.

More on the file.
"""

from attacks.base import Common
from attacks.engine.preset import Preset
from attacks.ig import IG


class Mine(IG):
    """Pixels by my own rule. It is better.

    1. Draw x where |x| < 1 & y.
    2. Take `a < b` steps.

    Args:
        power: of the norm |x|,
            above 0.
    """

    name = "mine"
    made_for = {"batch": 1}
    presets = {"paper": Preset("section 5", assumed="one start", power=3.0)}

    def __init__(self, *, power: float = 2.0, **options) -> None:
        super().__init__(**options)

    def search(self):
        yield "the search of mine"
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A new file in the folder of attacks."""
    (tmp_path / "mine.py").write_text(OWN)
    folder = import_module("attacks")
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    yield find("attack", "mine")
    sys.modules.pop("attacks.mine", None)
    vars(folder).pop("mine", None)


def test_every_method_has_its_page_and_its_line():
    pages = site.pages([])
    assert {f"methods/{name}.md" for name in known("attack")} < pages.keys()
    listed = pages["methods/index.md"]
    assert all(f"[`{name}`]({name}.md)" in listed for name in known("attack"))
    kinds = {line.split(" | ")[0]: line.split(" | ")[2] for line in listed.splitlines() if line.startswith("| [")}
    assert (kinds["| [`pnp`](pnp.md)"], kinds["| [`ci_net`](ci_net.md)"]) == ("denoiser", "untrained network")


def test_every_option_of_every_method_is_explained():
    unexplained = {
        name: missing
        for name, method in registered("attack").items()
        if (missing := options_of(method).keys() - meanings(method).keys())
    }
    assert not unexplained


def test_a_new_file_has_its_page(mine):
    text = site.pages([])["methods/mine.md"]
    assert text.startswith("# mine\n\nMine: Me, *A paper*, 2030.\n\nPixels by my own rule. It is better.\n\n")
    assert "make bench METHOD=mine BATCH=1\n" in text
    assert "1. Draw x where |x| &lt; 1 &amp; y.\n2. Take `a < b` steps.\n" in text
    assert '    yield "the search of mine"' in text
    assert "- **setting**: Only `BATCH=1`." in text
    assert "| `power` | `2.0` |  | of the norm \\|x\\|, above 0. |" in text
    assert "| `paper` | section 5 | one start | `power=3.0` |" in text
    assert "Not recorded on any track yet." in text
    assert "More on the file" not in text


def test_an_option_of_a_base_is_one_of_the_method_where_it_passes_it_on(mine):
    """`tv` is explained and tuned where IG says so."""
    assert "| `tv` | `0.0001` | 1e-06 to 0.1 | weight of" in page("pnp", find("attack", "pnp"), [])


def test_a_page_has_the_record_of_its_method_and_of_no_other():
    found = recorded(read("cifar10-b1"))
    text = page("gias", find("attack", "gias"), [found])
    columns = table(found).columns
    line = next(line for line in text.splitlines() if line.startswith("| [cifar10-b1](../board/README.md#cifar10-b1)"))
    assert columns["PSNR ↑"][columns["attack"].index("gias")] in line
    assert "![gias on cifar10-b1](../leaderboard/record/cifar10-b1/gias.webp)" in text
    assert "ig.webp" not in text
    assert "it can exclude 0 although the verdict is 'may be the best'" in text
    assert "Not recorded" in page("rgap", find("attack", "rgap"), [found])


def test_what_a_method_must_know_follows_from_its_class():
    assert "**prior**: A denoiser, `denoiser-photos` by default." in page("pnp", find("attack", "pnp"), [])
    assert "**labels**: Found by the method itself." in page("spear", find("attack", "spear"), [])
    assert "**batch-norm statistics**: Used where" in page("gi", find("attack", "gi"), [])
    assert "**steps**: None to choose" in page("rgap", find("attack", "rgap"), [])


def test_a_page_has_what_the_check_of_its_method_refuses():
    checking = {name: method for name, method in registered("attack").items() if "check" in vars(method)}
    assert {"spear", "gi_nas"} < checking.keys()
    for name, method in checking.items():
        said = " ".join(method.check.__doc__.split(".")[0].split()).removeprefix("Refuse ")
        assert f"- **refused**: {said[0].upper()}{said[1:]}." in page(name, method, [])
    assert "**refused**" not in page("ig", find("attack", "ig"), [])


def test_a_page_has_what_was_tuned_for_its_method_by_track():
    best = read_tuned(read("photos-default"), "gias")
    text = page("gias", find("attack", "gias"), [])
    (line,) = (line for line in text.splitlines() if line.startswith("| photos-default | "))
    assert f"{best.default:.2f} to {best.score:.2f} dB" in line
    assert f"`eta_z={best.options['eta_z']:.3g}`" in line
    assert len(best.options) == line.count("=")
    assert "### Tuned" not in page("rgap", find("attack", "rgap"), [])  # it has nothing to tune


def test_cells_are_markdown_without_ends_of_cells():
    assert grid(("a", "b"), [("|x|", "one\n  two")]) == "| a | b |\n| --- | --- |\n| \\|x\\| | one two |"
    assert grid(("a",), []) == ""
    assert without_html("`a<b` a<b `&`") == "`a<b` a&lt;b `&`"
    assert (bounds(Between(1e-3, 2.0)), bounds((True, "x")), bounds(())) == ("0.001 to 2", "True, x", "")


def test_answers_have_what_the_record_says():
    found = recorded(read("cifar10-b1"))
    said = site.answers([found])
    assert f"cifar10-b1: {found.board[0][0].attack}, " in said["strongest"]
    assert not said["strongest"].startswith("#")
    assert site.answers([])["defenses"] == "Nothing is recorded yet."
    assert "| `DEFENSE=noise:0.001` | Independent noise" in said["every defense"]
    assert "| `psnr` | Peak signal" in said["every metric"]
