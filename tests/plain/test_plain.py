"""The suite's attacks and the loops of textbook, framework and authors find the same costs, step by step.

In double precision this holds over whole searches, in single precision only while the search is well conditioned: a
start that differs in its last digit changes GIFD's plain loop as much (measured on its first phase: 2 % after 30 steps)
as the suite differs from it. CMA-ES uses ranks and no gradients, and agrees until two candidates tie.
"""

from itertools import islice
from pathlib import Path

import pytest
import torch

from attacks.engine.session import least
from attacks.ggl import GGL
from attacks.gias import GIAS
from attacks.gifd import GIFD
from attacks.ig import IG
from priors import by_name as priors_by_name
from tests.plain.forms import FORMS, plain
from tests.plain.loops import into_l1_ball
from victims.models.convnet import ConvNet
from victims.models.lenet import LeNet
from victims.models.resnet18 import ResNet18

ATTACKS = {"ig": IG, "gias": GIAS, "gifd": GIFD, "ggl": GGL}
PHASES = {"ig": 1, "gias": 2, "gifd": 4, "ggl": 1}


@pytest.fixture
def curves(capture):
    """The suite's cost curve and the plain loop's."""

    def both(name, *, batch, restarts, steps, whole, dtype, form="textbook", **task):
        observation = capture((3, 50, 90)[:batch], dtype=dtype, **task).observation
        options = {"restarts": restarts, "steps": steps if whole else steps * PHASES[name]}
        if name != "ig":
            options["prior"] = priors_by_name.find("dcgan-photos32", Path("weights"), size=32, seed=0).to(dtype)
        if name == "ggl":
            options["population"] = 6
        suite, twin = (ATTACKS[name](**options) for _ in "ab")
        suite.begin([observation])
        for _ in range(steps):
            suite.advance()
        twin.begin([observation])
        costs = list(islice(map(min, zip(*plain(twin, form), strict=True)), steps))
        return torch.cat([least(costs) for _, costs in suite.session.costs]).double(), torch.tensor(
            costs, dtype=torch.float64
        )

    return both


def agree(curves, tolerance):
    suite, plain = curves
    torch.testing.assert_close(suite, plain, rtol=tolerance, atol=0)
    assert plain.min() < 0.9 * plain[0]  # something was found


SMALL = [
    ("ig", LeNet, 50),
    ("gias", LeNet, 24),
    ("gifd", LeNet, 24),
    ("ggl", LeNet, 8),
    ("ig", ConvNet, 12),
    *(pytest.param(name, ConvNet, 50, marks=pytest.mark.slow) for name in ATTACKS),
    *(pytest.param(name, ResNet18, 20, marks=pytest.mark.slow) for name in ATTACKS),
]


@pytest.mark.parametrize(("name", "model", "steps"), SMALL)
def test_whole_searches_in_double_precision(curves, name, model, steps):
    task = {"batch": 2, "restarts": 2, "rate": 0.9 if name == "gifd" else None}
    agree(curves(name, model=model, steps=steps, whole=True, dtype=torch.float64, **task), 1e-6)


PEERS = [(form, name) for form in ("breaching", "authors") for name in FORMS[form]]


@pytest.mark.parametrize(("form", "name"), PEERS)
def test_whole_searches_of_peers(curves, form, name):
    task = {"batch": 2, "restarts": 2, "rate": None, "model": LeNet}
    agree(curves(name, steps=48, whole=True, dtype=torch.float64, form=form, **task), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("model", [ConvNet, ResNet18])
@pytest.mark.parametrize(("form", "name"), PEERS)
def test_whole_searches_of_peers_on_larger_victims(curves, form, name, model):
    task = {"batch": 2, "restarts": 1, "rate": None, "model": model}
    agree(curves(name, steps=24, whole=True, dtype=torch.float64, form=form, **task), 1e-6)


@pytest.mark.parametrize(("batch", "restarts", "rate"), [(1, 1, None), (2, 2, 0.9)])
@pytest.mark.parametrize(("name", "steps"), [("ig", 50), ("gias", 50), ("gifd", 8), ("ggl", 10)])
def test_first_phases_in_single_precision(curves, name, steps, batch, restarts, rate):
    task = {"batch": batch, "restarts": restarts, "rate": rate}
    agree(curves(name, model=LeNet, steps=steps, whole=False, dtype=torch.float32, **task), 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model", "steps"),
    [
        ("ig", ConvNet, 50),
        ("ggl", ConvNet, 50),
        ("ig", ResNet18, 40),
        pytest.param(
            "ig", ResNet18, 50, marks=pytest.mark.xfail(reason="1.2e-3 at step 48: signs near zero turn round")
        ),
        ("ggl", ResNet18, 50),
    ],
)
def test_larger_victims_in_single_precision(curves, name, model, steps):
    task = {"batch": 2, "restarts": 2, "rate": None}
    agree(curves(name, model=model, steps=steps, whole=False, dtype=torch.float32, **task), 1e-3)


def test_the_plain_ball_holds_the_nearest_point():
    """Of (3, -2.5, 0) both entries lose 2.25, so that 1 is left of 5.5."""
    found = into_l1_ball(torch.tensor([3.0, -2.5, 0.0]), torch.tensor(1.0))
    torch.testing.assert_close(found, torch.tensor([0.75, -0.25, 0.0]))
    inside = torch.tensor([0.5, -0.25])
    assert torch.equal(into_l1_ball(inside, torch.tensor(1.0)), inside)
