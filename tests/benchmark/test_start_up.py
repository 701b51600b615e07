"""Help, lists and refusals of mistyped names need no torch, and what they say is what the rest of the suite knows."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from attacks.labels import names as label_methods
from benchmark.names import KINDS, known
from benchmark.scoring.metrics import METRICS
from priors import names as prior_names
from victims.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "pytorch_lightning", "wandb", "timm", "skimage", "sklearn", "matplotlib", "numpy")
WATCHED = """
import sys
from benchmark.__main__ import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code or 0
print("imported", [name for name in %r if name in sys.modules], "code", code)
"""


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        ("--help", 0, "audit"),
        ("run --help", 0, "--victim_weights"),
        ("submit --help", 0, "--at_once"),
        ("prior --help", 0, "prior quality"),
        ("list", 0, "gias"),
        ("list --json", 0, "gias"),
        ("rum", 2, "did you mean 'run'"),
        ("", 2, "give a command"),
        ("prior", 2, "did you mean 'prior list'"),
        ("run --attack=gas", 2, "did you mean 'gias'"),
        ("run --method=ig,gas", 2, "did you mean 'gias'"),
        ("run --data=foto", 2, "did you mean 'photos'"),
        ("run --victim=convent", 2, "did you mean 'convnet'"),
        ("run --defense=none,nois:1", 2, "did you mean 'noise'"),
        ("run --labels=arl", 2, "did you mean 'alr'"),
        ("run --prior=dcgan-foto32", 2, "did you mean 'dcgan-photos32'"),
        ("run --steps=many", 2, "steps takes int"),
        ("run --stepps=3", 2, "did you mean 'steps'"),
        ("run --methd=ig", 2, "did you mean 'method'"),
        ("run --lr=", 2, "lr takes float, not ''"),
        ("run --adapt=Both", 2, "adapt takes yes or no or both"),
        ("run --attack=ig,", 2, "unknown attack ''"),
        ("run --set", 2, "such as --set=tv=1e-3"),
    ],
)
def test_no_torch_is_imported(options, code, expected):
    done = subprocess.run(
        [sys.executable, "-c", WATCHED % (HEAVY,), *options.split()],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert f"imported [] code {code}" in done.stdout
    assert re.search(expected, done.stdout + done.stderr)
    assert done.stderr.count("\n") == (code != 0)


def test_the_list_has_every_kind(capsys):
    from benchmark.listing import list_names

    list_names(json=True)
    listed = json.loads(capsys.readouterr().out)
    assert listed.keys() == KINDS.keys()
    for kind, names in listed.items():
        assert names, kind
        assert all(summary.strip() for summary in names.values()), kind
    assert list(listed["label method"]) == label_methods()
    assert listed["metric"].keys() == METRICS.keys()
    assert listed["prior"].keys() >= {*prior_names.shipped(), *prior_names.published(), *prior_names.architectures()}
    assert {path.stem for path in (ROOT / "benchmark" / "recipes").glob("*.yaml")} == listed["recipe"].keys()


@pytest.mark.parametrize("kind", ["attack", "victim", "data", "defense", "loss"])
def test_names_read_from_source_are_those_of_the_classes(kind):
    """Whatever class of a kind stands in its folder, imported, has its name in the list."""
    from importlib import import_module

    from benchmark.registry import KINDS as BASES
    from benchmark.registry import find

    found = {name: find(kind, name) for name in known(kind)}
    assert all(issubclass(each, BASES[kind]) for each in found.values())
    folders = {"attack": "attacks", "victim": "victims/models", "data": "victims/data", "defense": "defenses"}
    folder = {**folders, "loss": "victims/losses"}[kind]
    for path in (ROOT / folder).glob("[!_]*.py"):
        module = import_module(f"{folder.replace('/', '.')}.{path.stem}")
        for name, item in vars(module).items():
            own = isinstance(item, type) and issubclass(item, BASES[kind]) and item.__module__ == module.__name__
            if own and (
                name.lower() == path.stem.replace("_", "")
                if kind != "attack"
                else "." not in getattr(item, "name", ".")
            ):
                assert item in found.values(), item


def test_a_file_that_is_not_python_is_named(tmp_path, monkeypatch):
    import attacks

    (tmp_path / "broken.py").write_text("syntax error(")
    monkeypatch.setattr(attacks, "__path__", [*attacks.__path__, str(tmp_path)])
    with pytest.raises(InputError, match=r"broken\.py is not valid Python"):
        known("attack")
