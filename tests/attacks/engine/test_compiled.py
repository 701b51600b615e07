"""Compiled evaluations against eager ones."""

import os
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout
from torch._dynamo.utils import counters

from attacks.ci_net import CINet
from attacks.engine import compiled, compiled_graphs
from attacks.engine.compiled import REPAID, Compiler
from attacks.engine.gradients import GradientPaths
from attacks.ggl import GGL
from attacks.gias import GIAS
from attacks.gias_parts import GIz
from attacks.ig import IG
from benchmark.config import Config
from benchmark.run import run
from priors.dcgan import DCGAN
from priors.stylegan2 import StyleGAN2
from victims.errors import Notice
from victims.modules import build

pytestmark = pytest.mark.usefixtures("compiled_folder")
CPU = torch.device("cpu")
LONG = 500.0  # seconds
slow = pytest.mark.slow  # compiling takes half a minute


def curve(attack, observations):
    return torch.stack([cost for _, cost in attack.run(observations).curve])


def test_what_a_model_computes_outside_of_torch_is_not_compiled_as_a_constant():
    """At the inputs with which it was traced such a function is right."""

    def function(x):
        scale = float(x.detach().numpy().max())
        return (x * scale).sum(), x, x, x * scale

    x = torch.rand(3, generator=torch.Generator().manual_seed(0))
    with pytest.warns(Notice, match="changes when it is compiled"):
        assert Compiler("on", LONG)(function, [x]) is function


@pytest.mark.parametrize(
    ("method", "rate", "options"),
    [
        pytest.param(IG, 0.5, {}, marks=slow),
        pytest.param(IG, None, {}, marks=slow),
        pytest.param(IG, None, {"compress": 0.5, "tensors": "top3"}, marks=slow),
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


@slow
def test_a_graph_is_compiled_once_and_reads_other_tensors_in_every_call(monkeypatch):
    made = []
    real = compiled_graphs.load
    monkeypatch.setattr(compiled_graphs, "load", lambda *given: made.append(1) or real(*given))
    weight, x = torch.randn(3), torch.randn(3)
    scales = [torch.ones(3), torch.full((3,), 2.0)]
    compiler = Compiler("on", LONG)
    one, two = (compiler(sums(weight, scale), [x]) for scale in scales)
    assert len(made) == 1
    for function, scale in ((one, scales[0]), (two, scales[1])):
        torch.testing.assert_close(function(x)[1], (weight * x).sin() * scale)
    scales[0].fill_(5.0)
    torch.testing.assert_close(one(x + 1)[1], (weight * (x + 1)).sin() * 5)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        pytest.param(
            lambda x: [x.sum(), x, x, x * 2 if x.sum().item() > 0 else x], "cannot be compiled",
            id="value",
        ),
        pytest.param(
            lambda x: [x.sum(), x, x, x + torch.full_like(x, next(NUMBERS))], "changes when",
            id="memory", marks=slow,
        ),
    ],
)  # fmt: skip
def test_a_function_that_cannot_be_compiled_still_runs(function, reason):
    with pytest.warns(Notice, match=reason):
        assert Compiler("on", LONG)(function, [torch.ones(3)]) is function


NUMBERS = iter(range(1, 100))


def test_auto_compiles_long_stages_on_a_cpu():
    auto = Compiler("auto", LONG)
    assert auto.repays(REPAID, CPU)
    assert not auto.repays(REPAID - 1, CPU)
    assert not auto.repays(REPAID, torch.device("meta"))
    assert Compiler("on", LONG).repays(1, CPU)
    assert not Compiler("off", LONG).repays(10 * REPAID, CPU)


@pytest.mark.parametrize(
    ("steps", "restarts", "tasks", "expected"),
    [(15, 1, 1, 0), (15, 2, 1, 2), (30, 1, 1, 1), (15, 1, 2, 1), (10, 1, 2, 0)],
)
def test_auto_counts_the_steps_and_chunks_of_all_tasks_of_a_run(steps, restarts, tasks, expected, capture, monkeypatch):
    asked = []
    monkeypatch.setattr(compiled, "REPAID", 30)
    monkeypatch.setattr(Compiler, "__call__", lambda self, function, inputs: asked.append(1) or function)
    attack = IG(steps=steps, restarts=restarts, chunk=1)
    attack.tasks = tasks
    attack.run([capture((3, 50, 90), size=16).observation])
    assert len(asked) == expected


def test_a_run_counts_its_tasks_whatever_their_groups_and_gives_up_in_its_time(tmp_path, monkeypatch):
    asked = set()
    monkeypatch.setattr(Compiler, "repays", lambda self, times, device: asked.add((times, self.seconds)))
    for group in (1, 2):
        small = {"steps": 3, "restarts": 1, "batch": 1, "victim": "lenet", "defense": "none", "tasks": 2, "size": 16}
        run(Config(attack="ig", group=group, compile_s=7, devices=1, wandb="off", out=tmp_path / f"{group}", **small))
    assert asked - {(1, 7)} == {(6, 7)}  # 1 where the paths are tried


@pytest.mark.parametrize(("population", "expected"), [(1, 60), (20, 180)])
def test_auto_does_not_depend_on_which_tasks_go_together(population, expected, capture, monkeypatch):
    """6 tasks of 10 steps, in each of which 2 restarts have all their candidates evaluated, 16 at once."""
    asked = set()
    choose = GradientPaths.choose
    monkeypatch.setattr(GradientPaths, "choose", lambda self, n, times: asked.add(times) or choose(self, n, times))
    observations = [capture((3,), size=16, task=task).observation for task in "abcdef"]
    attack = IG(steps=10, restarts=2, chunk=16)
    attack.tasks = len(observations)
    for group in (1, 2, 3, 6):
        attack.begin(observations[:group])
        asked.clear()
        attack.session.objective(population, attack.plan["x"])
        assert asked == {expected}


def test_another_process_compiles_and_this_one_finds_it_in_the_caches(monkeypatch):
    """Every other process and run does, too: it loads what is in the folder."""
    started = []
    real = compiled_graphs.in_own_process
    monkeypatch.setattr(compiled_graphs, "in_own_process", lambda *given: started.append(1) or real(*given))
    x, before = torch.randn(5), dict(counters["inductor"])
    for _ in range(2):
        function = sums(torch.randn(5), torch.randn(5))
        torch.testing.assert_close(Compiler("on", LONG)(function, [x])(x)[1], function(x)[1])
    assert len(started) == 1
    assert counters["inductor"]["fxgraph_cache_hit"] == before.get("fxgraph_cache_hit", 0) + 2
    assert counters["inductor"]["fxgraph_cache_miss"] == before.get("fxgraph_cache_miss", 0)


def test_compiling_is_given_up_when_it_takes_too_long(monkeypatch, tmp_path):
    """One line says so, and nothing of it goes on. The same graph is not tried again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ended = []
    real = os.killpg
    monkeypatch.setattr(os, "killpg", lambda group, signal: ended.append(group) or real(group, signal))
    compiler, function = Compiler("on", 0.5), sums(torch.ones(3), torch.ones(3))
    with pytest.warns(Notice, match="not compiled within 0.5 s, see --compile-s; continuing without"):
        assert compiler(function, [torch.ones(3)]) is function
    (process,) = ended
    with pytest.raises(ProcessLookupError):
        real(process, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiler(function, [torch.ones(3)]) is function
    assert len(ended) == 1


def test_one_process_compiles_and_the_others_wait(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    function, x = sums(torch.ones(3), torch.ones(3)), torch.ones(3)
    names = []

    def of_another(case, place, seconds):
        lock = place.with_suffix(".lock")
        names.append(lock.name)
        with pytest.raises(Timeout), FileLock(lock, timeout=0):
            pass
        raise RuntimeError("seen")

    monkeypatch.setattr(compiled_graphs, "in_own_process", of_another)
    with pytest.warns(Notice, match="seen"):
        Compiler("on", LONG)(function, [x])
    (lock,) = tmp_path.glob("gibench/compiled/*/*.lock")
    with FileLock(lock), pytest.warns(Notice, match="not compiled within 0.1 s"):
        Compiler("on", 0.1)(function, [x])
    assert names == [lock.name]


def test_what_is_compiled_is_kept_where_only_its_user_writes(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "gibench" / "compiled").mkdir(parents=True, mode=0o777)
    home = compiled_graphs.folder()
    assert stat.S_IMODE(home.parent.stat().st_mode) == 0o700
    monkeypatch.setattr(compiled_graphs, "processor", lambda: "another")
    assert compiled_graphs.folder() not in (home, home.parent)

    def refuse(*given):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    function = sums(torch.ones(3), torch.ones(3))
    with pytest.warns(Notice, match="cannot be compiled .*not permitted"):
        assert Compiler("on", LONG)(function, [torch.ones(3)]) is function


@pytest.mark.parametrize("owner", ["link", "another user"])
def test_a_folder_that_is_not_the_users_own_is_refused_and_left_as_it_is(owner, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    target, private = tmp_path / "target", tmp_path / "gibench" / "compiled"
    private.parent.mkdir()
    target.mkdir(mode=0o755)
    if owner == "link":
        private.symlink_to(target)
    else:
        target.rename(private)
        other = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: other)
    function = sums(torch.ones(3), torch.ones(3))
    with pytest.warns(Notice, match="cannot be compiled .*compiled is a link or belongs to another user; remove it"):
        assert Compiler("on", LONG)(function, [torch.ones(3)]) is function
    assert stat.S_IMODE(private.stat().st_mode) == 0o755
    assert not list(private.iterdir())


def test_what_is_damaged_is_compiled_anew_by_another_process(monkeypatch, capfd):
    places, started = [], []
    intact, in_own_process = compiled_graphs.intact, compiled_graphs.in_own_process
    monkeypatch.setattr(compiled_graphs, "intact", lambda place: places.append(place) or intact(place))
    monkeypatch.setattr(compiled_graphs, "in_own_process", lambda *given: started.append(1) or in_own_process(*given))
    function, x = sums(torch.randn(5), torch.randn(5)), torch.randn(5)
    Compiler("on", LONG)(function, [x])
    place, known = places[0], len(started)
    files = [file for file in place.rglob("*") if file.is_file()]
    for file in files:
        before = file.read_bytes()
        file.unlink()
        assert file.suffix == ".lock" or not intact(place)
        file.write_bytes(before)
    assert intact(place)
    for file in files:
        file.write_text("garbage")
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        torch.testing.assert_close(Compiler("on", LONG)(function, [x])(x)[1], function(x)[1])
    assert len(started) == known + 1
    assert intact(place)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_process_with_a_limit_of_time_compiles_nothing_itself(monkeypatch, tmp_path):
    """Where torch does not find what the list promises; the next start compiles it anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def only_lists(case, place, seconds):
        compiled_graphs.contents(place).write_text("{}")

    monkeypatch.setattr(compiled_graphs, "in_own_process", only_lists)
    function = sums(torch.ones(3), torch.ones(3))
    with pytest.warns(Notice, match="cannot be compiled .*does not find in its caches"):
        assert Compiler("on", LONG)(function, [torch.ones(3)]) is function
    assert not list(tmp_path.rglob("*.json"))


COMPILES = """
import torch
from attacks.engine.compiled import Compiler
Compiler("on", 500)(lambda x: (x.sum(), x, x, x.sin()), [torch.ones(3)])
"""


def test_compiling_ends_with_the_process_that_needs_it(tmp_path):
    """Until then it has a lock of its own."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", COMPILES], env=environment) as process:
        locks = []
        while process.poll() is None and not locks:
            locks = list(tmp_path.rglob("*.compiling"))
            time.sleep(0.1)
        with pytest.raises(Timeout), FileLock(locks[0], timeout=0.2):
            pass
        process.kill()
    with FileLock(locks[0], timeout=20):
        assert not list(tmp_path.rglob("*.json"))


def test_vector_instructions_are_tried_once_for_all_graphs(monkeypatch, tmp_path):
    place, tried = tmp_path / "instructions", []

    def pick():
        tried.append(1)
        (Path(os.environ[compiled_graphs.CACHE]) / "works").touch()

    monkeypatch.setattr(compiled_graphs, "pick_vec_isa", pick)
    for expected in (1, 1):
        assert list(compiled_graphs.instructions(place).iterdir()) == [place / "works"]
        assert len(tried) == expected
    (place / "works").write_text("garbage")
    compiled_graphs.instructions(place)
    assert len(tried) == 2
    assert not (place / "works").read_bytes()
