"""The documentation of presets."""

from pathlib import Path

from attacks.engine.preset import Preset
from attacks.gifd import GIFD
from benchmark.preset_table import block, table

FILE = Path(__file__).resolve().parents[2] / "docs" / "presets.md"


def test_the_table_in_the_docs_is_current():
    assert FILE.read_text() == table(), "run: make docs"


def test_a_line_has_source_assumption_and_options():
    class Method:
        presets = {"paper": Preset("section 5", assumed="one start", steps_x=10, tv=1e-6), "code": Preset("code")}

    *_, paper, code = block("ig", Method).splitlines()
    assert paper == "| `paper` | section 5 | one start | `steps_x=10` `tv=1e-06` |"
    assert code == "| `code` | code | nothing |  |"


def test_the_paper_stands_above_the_presets():
    heading, _, paper, *_ = block("gifd", GIFD).splitlines()
    assert heading == "## gifd"
    assert "ICCV 2023" in paper
