"""Who may import whom: downwards only. And what lies in which room."""

import ast
import importlib
from pathlib import Path

import pytest

from attacks.base import Attack

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "victims": set(),
    "defenses": {"victims"},
    "priors": {"victims"},
    "attacks": {"priors", "defenses", "victims"},
    "leaderboard": {"victims.errors", "victims.choices"},
    "benchmark": {"attacks", "priors", "defenses", "victims", "leaderboard"},
    "gibench": {"benchmark", "attacks", "priors", "defenses", "victims"},
}
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
LEARNS_A_PRIOR = {"giml"}  # a published method that makes a generator, not an attack on one update


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere; of `from a import b` both a and a.b, for b may be a module."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write the whole path of what is imported"
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def forbidden(package: str, modules: set[str]) -> set[str]:
    """Those of `modules` that belong to this project and may not be imported by `package`."""

    def fine(module: str) -> bool:
        own = module.split(".")[0]
        within = any(f"{module}.".startswith(f"{allowed}.") for allowed in ALLOWED[package])
        # `from victims.errors import InputError` names the package on the way.
        return own == package or own not in {*PACKAGES, "tests"} or within

    return {module for module in modules if not fine(module)}


def test_every_package_has_its_layer():
    assert set(PACKAGES) <= set(ALLOWED)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_downwards(package):
    for path in (ROOT / package).rglob("*.py"):
        assert not forbidden(package, imported(path)), path


def test_an_import_upwards_is_seen(tmp_path):
    file = tmp_path / "upwards.py"
    file.write_text("def late():\n    from benchmark import config\n    from victims.errors import InputError\n")
    assert forbidden("attacks", imported(file)) == {"benchmark", "benchmark.config"}
    assert forbidden("leaderboard", imported(file)) == {"benchmark", "benchmark.config"}
    assert not forbidden("gibench", imported(file))
    file.write_text("import victims.errors, victims.seeds\nimport tests.plain\n")
    assert forbidden("leaderboard", imported(file)) == {"victims.seeds", "tests.plain"}


def test_nothing_imports_the_command_line():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert not {"benchmark.__main__", "leaderboard.__main__"} & imported(path), path


def test_methods_alone_lie_at_the_top_of_attacks():
    """Their engine, closed forms and label methods have rooms of their own."""
    for path in (ROOT / "attacks").glob("*.py"):
        if path.stem in {"__init__", "base"} | LEARNS_A_PRIOR:
            continue
        module = importlib.import_module(f"attacks.{path.stem}")
        own = [item for item in vars(module).values() if getattr(item, "__module__", "") == module.__name__]
        assert any(isinstance(item, type) and issubclass(item, Attack) for item in own), path
