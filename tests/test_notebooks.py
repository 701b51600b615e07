"""The notebooks run from the first cell to the last; they are stored without what a run prints."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from benchmark.audit.verdicts import ORDER

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_it_is_stored_without_outputs(notebook):
    """They differ from machine to machine, and pictures would be in every change."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not [cell for cell in code if cell.outputs or cell.execution_count]


@pytest.mark.slow
def test_it_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPS", "8")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # on busy cores several threads wait for each other, ten times as long
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    lines = [line for line in printed.splitlines() if re.match(r"(ig|gias|ci_net|none|noise|sparsification)\b", line)]
    assert len(lines) >= 4
    assert all(re.search(r"\d+\.\d\d", line) for line in lines)
    if any("verdict" in line for line in printed.splitlines()):
        assert all(line.endswith(ORDER) for line in lines)  # the audit's own
    assert any("image/png" in output.get("data", {}) for output in outputs)
