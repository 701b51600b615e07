"""Compiled evaluations against eager ones."""

import pytest
import torch

from attacks.ci_net import CINet
from attacks.engine import compiled
from attacks.engine.compiled import REPAID, Compiler
from attacks.ggl import GGL
from attacks.gias import GIAS
from attacks.gias_parts import GIz
from attacks.ig import IG
from priors.dcgan import DCGAN
from priors.stylegan2 import StyleGAN2
from victims.errors import Notice
from victims.victim import build

CPU = torch.device("cpu")
slow = pytest.mark.slow  # compiling takes half a minute


def curve(attack, observations):
    return torch.stack([cost for _, cost in attack.run(observations).curve])


@pytest.mark.parametrize(
    ("method", "rate", "options"),
    [
        (IG, 0.5, {}),
        pytest.param(IG, None, {}, marks=slow),
        pytest.param(GIAS, 0.5, {}, marks=slow),
        pytest.param(CINet, None, {}, marks=slow),
        pytest.param(GGL, None, {"population": 3}, marks=slow),
    ],
)
@pytest.mark.filterwarnings("error::victims.errors.Notice")
def test_compiled_and_eager_attacks_have_the_same_curve(method, rate, options, capture):
    """In float64, because steps amplify rounding. CI-Net's power vectors change in place between two steps."""
    observations = [capture(size=16, rate=rate, task=task, dtype=torch.float64).observation for task in "tu"]
    prior = {"prior": build(DCGAN, size=32, ngf=4, seed=0).double().eval()} if "prior" in method.needs else {}
    given = {"steps": 8, "restarts": 2, **prior, **options}
    eager, fast = (curve(method(compile=mode, **given), observations) for mode in ("off", "on"))
    torch.testing.assert_close(fast, eager, rtol=1e-6, atol=1e-9)
    assert not torch.equal(fast[0], fast[-1])


@slow
@pytest.mark.filterwarnings("error::victims.errors.Notice")
def test_compiled_steps_see_the_noise_that_is_redrawn_between_them(capture):
    observations = [capture(dtype=torch.float64).observation]
    G = build(StyleGAN2, size=32, width=4, style_dim=4, layers_mapping=2, seed=0).double().eval().requires_grad_(False)
    for name, parameter in G.named_parameters():
        if name.endswith("strength"):
            parameter.fill_(0.3)
    options = {"steps": 6, "prior": G, "noise": "redrawn"}
    eager, fast = (curve(GIz(compile=mode, **options), observations) for mode in ("off", "on"))
    torch.testing.assert_close(fast, eager, rtol=1e-6, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("error::victims.errors.Notice")
@pytest.mark.parametrize("chunk", [None, 1], ids=["one graph", "a graph replayed within a step"])
def test_captured_and_eager_attacks_have_the_same_curve(chunk, capture):
    """On a GPU, with more steps than the warm-up of a graph, for two groups of tasks."""
    victim = capture(size=16, dtype=torch.float64).observation.victim.to("cuda")
    for task in "tu":
        observations = [capture(size=16, task=task, victim=victim).observation]
        eager, fast = (curve(IG(steps=20, chunk=chunk, compile=mode), observations) for mode in ("off", "on"))
        torch.testing.assert_close(fast, eager, rtol=1e-6, atol=1e-9)
        assert not torch.equal(fast[0], fast[-1])


def sums(weight, scale):
    def function(x):
        y = (weight * x).sin() * scale
        return y.sum(), y, y, y.cos()

    return function


def test_a_graph_is_compiled_once_and_reads_other_tensors_in_every_call(monkeypatch):
    made = []
    real = torch._inductor.compile
    monkeypatch.setattr(torch._inductor, "compile", lambda *given: made.append(1) or real(*given))
    weight, x = torch.randn(3), torch.randn(3)
    scales = [torch.ones(3), torch.full((3,), 2.0)]
    compiler = Compiler("on", [weight])
    one, two = (compiler(sums(weight, scale), [x]) for scale in scales)
    assert len(made) == 1
    for function, scale in ((one, scales[0]), (two, scales[1])):
        torch.testing.assert_close(function(x)[1], (weight * x).sin() * scale)
    scales[0].fill_(5.0)
    torch.testing.assert_close(one(x + 1)[1], (weight * (x + 1)).sin() * 5)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: [x.sum(), x, x, x * 2 if x.sum().item() > 0 else x], "cannot be compiled"),
        (lambda x: [x.sum(), x, x, x + torch.full_like(x, next(NUMBERS))], "changes when"),
    ],
    ids=["looks at a value", "has a memory"],
)
def test_a_function_that_cannot_be_compiled_still_runs(function, reason):
    with pytest.warns(Notice, match=reason):
        assert Compiler("on", [])(function, [torch.ones(3)]) is function


NUMBERS = iter(range(1, 100))


def test_auto_compiles_long_stages_on_a_cpu():
    auto = Compiler("auto", [])
    assert auto.repays(REPAID, CPU)
    assert not auto.repays(REPAID - 1, CPU)
    assert not auto.repays(REPAID, torch.device("meta"))
    assert Compiler("on", []).repays(1, CPU)
    assert not Compiler("off", []).repays(10 * REPAID, CPU)


def test_auto_counts_a_stages_steps_and_chunks(capture, monkeypatch):
    monkeypatch.setattr(compiled, "REPAID", 30)
    monkeypatch.setattr(Compiler, "__call__", lambda self, function, inputs: asked.append(1) or function)
    observation = capture((3, 50, 90), size=16).observation
    for steps, restarts, expected in ((15, 1, 0), (15, 2, 2), (30, 1, 1)):
        asked = []
        IG(steps=steps, restarts=restarts, chunk=1).run([observation])
        assert len(asked) == expected
