"""`check`: the contracts of each kind on a file of the user's own, line by line, with an exit code."""

import re
import sys
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.check import data, metric, prior, victim
from benchmark.check.fails import Fails
from benchmark.registry import registered
from benchmark.scoring.metrics import METRICS
from priors import by_name
from priors.stylegan2 import StyleGAN2
from tests.test_contributing import EXAMPLES
from victims.modules import build

README = (Path(__file__).resolve().parents[3] / "README.md").read_text()
(PLAIN,) = re.findall(r"```python\n# plain_l2\.py\n(.*?)```", README, re.DOTALL)
FILES = {**EXAMPLES, "plain_l2": PLAIN}
SHOWN = {
    "my_defense.Rounding": "a defense",
    "my_prior.Clouds:32": "a generator",
    "my_victim.Patches": "a victim",
    "my_data.Stripes": "a data set",
    "my_metric.largest_error": "a metric",
    "my_loss.Poly:2": "a loss",
}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """What README and CONTRIBUTING show, as files of the current folder."""
    for name, code in FILES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name, None)
    METRICS.pop("largest_error", None)


@pytest.mark.parametrize(("plugin", "kind"), SHOWN.items())
def test_what_is_shown_keeps_all_contracts(plugin, kind, outside, capsys):
    assert main(["check", plugin]) == 0
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first == f"{plugin} as {kind}"
    assert all(line.startswith("holds  ") for line in lines)
    assert last == f"all {len(lines)} contracts hold"
    assert len(set(lines)) == len(lines) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("plugin", ["plain_l2.PlainL2", "my_attack.IGMedian", "my_denoised_attack.IGMedianDenoised"])
def test_the_attacks_that_are_shown_keep_all_contracts(plugin, outside, capsys):
    assert main(["check", plugin]) == 0
    _, *lines, last = capsys.readouterr().out.splitlines()
    assert "holds  restarts are independent" in lines
    assert last == f"all {len(lines)} contracts hold"
    assert len(lines) >= 20


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        ("ig", "give the dotted path"),
        ("no_such.Attack", "No module named 'no_such'; put the folder of its file on PYTHONPATH."),
        ("plain_l2.Other", "has no attribute 'Other'; give a name that is there."),
        ("plain_l2.PlainL3", "has no attribute 'PlainL3'; did you mean 'PlainL2'?"),
        ("needs.Attack", "No module named 'nowhere_to_be_found'; install it, or correct the name."),
        ("plain_l2.squared_l2", "is none of what can be checked"),
        ("torn.Attack", "SyntaxError"),
        ("raises.Attack", "ZeroDivisionError: division by zero, at raises.py:2"),
        ("my_defense.Rounding:-1", "under its examples; give my_defense.Rounding alone"),
        ("my_prior.Clouds:no.pt", "no.pt"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(plugin, said, outside, capsys):
    (outside / "torn.py").write_text("class Attack(\n")
    (outside / "needs.py").write_text("import nowhere_to_be_found\n")
    (outside / "raises.py").write_text("# broken\n1 / 0\n")
    assert main(["check", plugin]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


# The same contracts on what is here.


@pytest.mark.parametrize("contract", prior.OF_GENERATORS, ids=lambda contract: contract.__name__)
@pytest.mark.parametrize("name", ["dcgan-photos32", "dcgan-cifar10-conditional"])
def test_generators(contract, name):
    contract(by_name.find(name, Path("weights"), size=32, seed=0))


def test_a_generator_without_bounds_may_leave_them():
    """StyleGAN2 with random weights, whose colors are far out; a bounded generator must not."""
    generator = build(StyleGAN2, seed=0, size=32, width=8, style_dim=8).eval().requires_grad_(False)
    prior.its_images_are_of_its_image_shape_in_0_to_1(generator)
    generator.bounded = True
    with pytest.raises(Fails, match=r"not in \[0, 1\]"):
        prior.its_images_are_of_its_image_shape_in_0_to_1(generator)


@pytest.mark.parametrize("contract", prior.OF_DENOISERS, ids=lambda contract: contract.__name__)
def test_the_shipped_denoiser(contract):
    contract(by_name.find("denoiser-photos", Path("weights"), size=32, seed=0))


@pytest.mark.parametrize("contract", victim.CONTRACTS, ids=lambda contract: contract.__name__)
@pytest.mark.parametrize("name", ["lenet", "resnet20"])
def test_victims(contract, name):
    contract(registered("victim")[name])


@pytest.mark.parametrize("contract", data.CONTRACTS, ids=lambda contract: contract.__name__)
def test_the_embedded_photographs(contract):
    contract(data.Case("photos", Path("data"), 32))


@pytest.mark.parametrize("contract", metric.CONTRACTS, ids=lambda contract: contract.__name__)
@pytest.mark.parametrize("name", [name for name, each in METRICS.items() if not each.needs])
def test_metrics(contract, name):
    contract(METRICS[name])
