"""Which packages of pyproject.toml are not installed, and what goes without them. No import that may be missing."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

WITHOUT = {  # what is skipped; every package that is not here is needed
    "cma": "searches by CMA-ES",
    "hypothesis": "nothing",
    "jsonargparse": "command lines",
    "lpips": "nothing",
    "opacus": "the defense dp_sgd",
    "optuna": "tuning",
    "piq": "FSIM",
    "pytest-timeout": "the time limit of a test",
    "pytest-xdist": "tests on several cores",
    "submitit": "jobs of a cluster",
    "threadpoolctl": "nothing",
    "timm": "its models and ImageNet's names",
    "wandb": "W&B",
}
OTHERS = ("mypy", "pytorch-pretrained-biggan", "ruff", "selenium", "setuptools")  # of other tests and checks
MODULES = {"pillow": "PIL", "pytest-xdist": "xdist", "pyyaml": "yaml", "scikit-image": "skimage"}
MODULES |= {"scikit-learn": "sklearn"}


def module(package: str) -> str:
    return MODULES.get(package, package.replace("-", "_"))


def absent() -> list[str]:
    """The packages that are not installed, of those that the check can use."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    packages = [re.match(r"[\w-]+", line)[0] for line in lines]
    return [package for package in packages if package not in OTHERS and missing(module(package))]


def missing(name: str) -> bool:
    return name not in sys.modules and not importlib.util.find_spec(name)


def told(packages: list[str]) -> str:
    return ", ".join(f"{package} (skipped: {WITHOUT[package]})" for package in packages) or "none"
