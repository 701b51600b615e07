"""Who may import whom: downwards only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "victims": set(),
    "defenses": {"victims"},
    "priors": {"victims"},
    "attacks": {"priors", "defenses", "victims"},
    "leaderboard": {"leaderboard.rows", "victims.errors"},
    "benchmark": {"attacks", "priors", "defenses", "victims", "leaderboard"},
}


def imported(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    return modules


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_downwards(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        for module in imported(path):
            top = module.split(".")[0]
            if top in ALLOWED and top != package:
                assert any(module == a or module.startswith(f"{a}.") for a in ALLOWED[package]), f"{path}: {module}"


def test_nothing_imports_the_command_line():
    for package in ALLOWED:
        for path in (ROOT / package).rglob("*.py"):
            assert not {"benchmark.__main__", "leaderboard.__main__"} & imported(path), path
