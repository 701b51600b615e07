"""The wheel holds all that a run needs, and runs outside the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def call(*command: str | Path, **options: object) -> str:
    """The command's standard output; a failure shows both streams."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because setuptools writes into the folder that it builds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    call(sys.executable, "-m", "pip", "wheel", source, "--no-deps", "--no-build-isolation", "--quiet", "-w", out)
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_every_file_of_the_packages_is_in_the_wheel(wheel):
    """Weights, lists of tasks, recipes and the page among them."""
    files = {path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.*")}
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in files - packed if "__pycache__" not in name} == set()
    assert any(name.endswith("licenses/LICENSE") for name in packed)


@pytest.mark.slow
def test_the_wheel_runs_outside_the_checkout(wheel, tmp_path):
    """In a fresh environment with the installed dependencies, without this checkout, inside a user's repository."""
    git = ("git", "-C", tmp_path, "-c", "user.name=user", "-c", "user.email=user@example.org")
    call(*git, "init", "--quiet")
    call(*git, "commit", "--quiet", "--allow-empty", "--message=theirs")
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    own = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A path from a .pth file is searched last, and the .pth files in it, such as an editable install's, are not read.
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    install = ("--no-deps", "--no-index", "--ignore-installed", "--quiet")
    call(sys.executable, "-m", "pip", "--python", python, "install", *install, wheel)

    empty = tmp_path / "empty"
    empty.mkdir()
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"GIBENCH_OFFLINE": "1"}
    where = call(python, "-c", "import benchmark, leaderboard; print(benchmark.__file__)", cwd=empty, env=clean)
    assert own in Path(where.strip()).parents

    gibench = tmp_path / "venv" / "bin" / "gibench"
    few = ("--steps=4", "--tasks=1", "--devices=1", "--wandb=off")
    assert "gias" in call(gibench, "run", *few, cwd=empty, env=clean)  # the shipped prior
    printed = call(gibench, "run", "--attack=ig", *few, cwd=empty, env=clean)
    assert "PSNR" in printed
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    (rows,) = empty.glob("results/ig-*/rows.jsonl")
    assert f'"code": "{version}"' in rows.read_text()
    assert (rows.parent / "picture.png").is_file()

    call(python, "-m", "leaderboard", "results", cwd=empty, env=clean)
    assert "ig" in (empty / "results" / "leaderboard.html").read_text()
