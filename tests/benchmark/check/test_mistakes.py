"""The typical mistakes of an author end in one line that names the contract and the author's own line."""

import sys
from importlib import import_module

import pytest

from attacks.engine import author
from attacks.engine.requirements import SURROGATE
from benchmark.__main__ import main
from benchmark.scoring.metrics import METRICS
from benchmark.scoring.score import SCORES
from defenses.base import STATIC, UPDATE
from priors.base import ATTRIBUTES, IMAGES
from victims.data.base import ITEMS, SPLIT

ATTACK = '''
from attacks.base import Attack
from attacks.engine.distances import squared_l2
from attacks.engine.stage import Stage


class Mine(Attack):
    """Pixels by Adam on the squared distance."""

    needs = frozenset({"labels"})

    def __init__(self, *, steps_x: int = 4, **common) -> None:
        super().__init__({"x": steps_x}, **common)

    def distance(self, dummy, received):
        return squared_l2(dummy, received)

    def penalty(self, v, x):
        return 0.01 * x.square().flatten(1).mean(1)

    def search(self):
        yield Stage(
            name="x",
            variables={"x": self.noise()},
            decode=lambda v: v["x"],
            penalty=self.penalty,
            lr=0.1,
            project=lambda v, step: self.box(v["x"]),
        )
'''

INIT, SEARCH, YIELD = "def __init__", "def search", "yield Stage("
LIST = 'return [Stage(name="x", variables={}, lr=0.1)]\n\n    def look(self):\n        yield Stage('
NOISE = '"x": self.noise()},\n            decode=lambda v: v["x"],'
CLASSES = 'labels=lambda v: v["x"][:, 0, 0, 0, 0].long()'
MISTAKES = {
    "no plan": (author.PLAN, INIT, '{"x": steps_x}, ', ""),
    "a plan of one number": (author.PLAN, INIT, '{"x": steps_x}', "steps_x"),
    "super is not called": (author.PLAN, INIT, 'super().__init__({"x": steps_x}, **common)', "pass"),
    "no common options": (author.COMMON, INIT, ", **common) ->", ") ->"),
    "common options dropped": (author.COMMON, INIT, "steps_x}, **common", "steps_x}"),
    "a stage that the plan does not name": (author.SEARCH, YIELD, 'name="x"', 'name="y"'),
    "a stage that never comes": (author.SEARCH, SEARCH, '{"x": steps_x}', '{"x": steps_x, "y": 4}'),
    "search returns a list": (author.SEARCH, SEARCH, "yield Stage(", LIST),
    "search is missing": (author.SEARCH, "class Mine", "def search", "def look"),
    "search yields no stage": (author.SEARCH, "yield dict(", "yield Stage(", "yield dict("),
    "decode of another size": (author.DECODE, "decode=", 'v: v["x"]', 'v: v["x"][..., ::2, ::2]'),
    "decode without restarts": (author.DECODE, "decode=", 'v: v["x"]', 'v: v["x"][0]'),
    "decode gives a dictionary": (author.DECODE, "decode=", 'v: v["x"]', "v: v"),
    "no decode and no x": (author.DECODE, YIELD, NOISE, '"u": self.noise()},'),
    "decode is detached": (author.DIFFERENTIABLE, "decode=", 'v: v["x"]', 'v: v["x"].detach()'),
    "a variable that is not used": (author.DIFFERENTIABLE, "decode=", '"x": self', '"u": self.noise(), "x": self'),
    "the distance is detached": (author.DIFFERENTIABLE, "def distance", "received)\n", "received).detach()\n"),
    "a penalty that is one number": (author.PENALTY, "def penalty", "flatten(1).mean(1)", "mean()"),
    "a penalty of every image": (author.PENALTY, "def penalty", "flatten(1).mean(1)", "flatten(2).mean(2)"),
    "a distance that is one number": (author.DISTANCE, "def distance", "received)\n", "received).sum()\n"),
    "labels that are not known": (author.LABELS, YIELD, 'needs = frozenset({"labels"})', ""),
    "a need that there is not": (author.DECLARED, "class Mine", "labels", "lables"),
    "a need that is no set": (author.DECLARED, "class Mine", 'frozenset({"labels"})', '"labels"'),
    "labels of another shape": (author.LABELS_SHAPE, "labels=", "lr=0.1", f"lr=0.1, {CLASSES}"),
    "a learning rate that is not finite": (author.RATE, YIELD, "lr=0.1", 'lr=float("inf")'),
    "variables without restarts": (author.VARIABLES, YIELD, "self.noise()", "self.noise()[0]"),
    "variables that are integers": (author.VARIABLES, YIELD, "self.noise()", "self.noise().long()"),
    "a project that returns": (author.PROJECT, "project=", 'self.box(v["x"])', 'v["x"].clamp(-1, 1)'),
    "a project that replaces": (author.PROJECT, "project=", 'self.box(v["x"])', 'v.update(x=v["x"].clamp(-1, 1))'),
}  # fmt: skip
"""Of an attack: the contract, the line that is named, and what is written in place of what."""
ALIKE = (
    *("a plan of one number", "search yields no stage", "decode without restarts", "decode gives a dictionary"),
    *("a penalty of every image", "variables that are integers", "a project that replaces"),
)
"""Those that others come close to."""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file of the author's into the current folder, which is on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(name: str, code: str) -> None:
        (tmp_path / f"{name}.py").write_text(code)
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


def changed(code: str, old: str, new: str) -> str:
    assert code.count(old) == 1
    return code.replace(old, new)


def place(file: str, code: str, marker: str) -> str:
    """The first line with a marker."""
    return f"({file}.py:{next(k for k, line in enumerate(code.splitlines(), 1) if marker in line)})"


def run(tmp_path, *options: str) -> int:
    few = ["--victim=lenet", "--batch=2", "--tasks=1", "--restarts=3", "--devices=1", "--wandb=off", "--control=none"]
    return main(["run", *few, f"--out={tmp_path / 'out'}", *options])


@pytest.mark.parametrize(
    ("contract", "marker", "old", "new"),
    [pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name in ALIKE)) for name, case in MISTAKES.items()],
)
def test_what_is_wrong_with_an_attack_and_where(contract, marker, old, new, write, tmp_path, capsys):
    code = changed(ATTACK, old, new)
    write("mistake", code)
    labels = "--labels=none" if contract == author.LABELS else "--labels=given"
    assert run(tmp_path, "--attack=mistake.Mine", labels) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("benchmark: ")]
    assert said[-1].startswith(f"benchmark: the contract '{contract}' is broken: ")
    assert said[-1].endswith(f"{place('mistake', code, marker)}.")
    assert not list(tmp_path.glob("out/*/rows.jsonl"))
    assert main(["check", "mistake.Mine"]) == 1
    _, line, others = capsys.readouterr().out.splitlines()
    assert line.startswith(f"fails  the engine runs it: {contract}: ")
    assert line.endswith(place("mistake", code, marker))
    assert others.endswith("other contracts are tried when this one holds")


def test_what_keeps_all_contracts_runs(write, tmp_path, capsys):
    write("kept", ATTACK)
    assert run(tmp_path, "--attack=kept.Mine") == 0
    assert "PSNR" in capsys.readouterr().out


def test_an_attack_that_ends_the_program_has_no_result(write, tmp_path, capsys):
    code = ATTACK.replace("super().__init__", "raise SystemExit(0)\n        super().__init__")
    write("mistake", code)
    where = place("mistake", code, "raise SystemExit")
    assert run(tmp_path, "--attack=mistake.Mine") == 2
    assert (
        capsys.readouterr().err.splitlines()[-1].endswith(f"sys.exit(0) of your code; raise an error instead {where}.")
    )
    assert main(["check", "mistake.Mine"]) == 1
    assert f"fails  the engine runs it: it calls sys.exit(0); raise an error instead {where}" in capsys.readouterr().out


def test_what_an_attack_raises_is_one_line(write, tmp_path, capsys):
    code = ATTACK.replace("super().__init__", "[][0]\n        super().__init__")
    write("mistake", code)
    assert run(tmp_path, "--attack=mistake.Mine") == 2
    where = place("mistake", code, "[][0]")
    said = f"benchmark: your code raised IndexError: list index out of range {where}."
    assert capsys.readouterr().err.splitlines()[-1] == said


DEFENSE = """
from defenses.base import Defense


class Mine(Defense):
    examples = ("mine",)

    def __call__(self, update, generator):
        return {name: g.round(decimals=2) for name, g in update.items()}

    @staticmethod
    def estimate(received, victim):
        return lambda gradient: gradient
"""

PRIOR = """
import torch
from torch import nn

from priors.base import Generator


class Mine(Generator):
    def __init__(self, *, size: int = 32) -> None:
        super().__init__()
        self.image_shape = (3, size, size)
        self.blocks = nn.ModuleList([nn.Conv2d(4, 3, 1), nn.Upsample(size=size), nn.Sigmoid()])

    def draw(self, count, generator):
        return {"z": torch.randn(count, 4, 8, 8, generator=generator)}
"""

VICTIM = """
from torch import nn


class Mine(nn.Module):
    def __init__(self, *, image_shape, num_classes):
        super().__init__()
        channels, height, width = image_shape
        self.classifier = nn.Linear(channels * height * width, num_classes)

    def forward(self, x):
        return self.classifier(x.flatten(1))
"""

DATA = """
import torch

from victims.data.base import ImageData


class Mine(ImageData):
    name = "mine"
    classes = ("rows", "columns")
    mean, std = (0.5,), (0.35,)

    def __init__(self, *, split, size):
        self.split, self.size = split, size
        self.ids = [f"{split}-{place}" for place in range(64)]
        self.labels = torch.arange(64) % 2

    def __getitem__(self, index):
        start = self.splits.index(self.split)
        image = ((torch.arange(self.size * self.size) * (index + 1) + start) % 256 / 255).view(1, self.size, self.size)
        return image, int(self.labels[index])
"""

METRIC = """
from gibench import metric


@metric(higher_is_better=False, range=(0, 1), failure=1)
def mine(reconstruction, truth):
    return (reconstruction - truth).abs().amax(dim=(1, 2, 3))
"""

DENOISER = """
from priors.base import Denoiser


class Mine(Denoiser):
    trained_on = "nothing"
    channels = 3

    def __init__(self):
        super().__init__()
        self.eval()

    def forward(self, x, sigma):
        return x.clamp(0, 1)
"""
WORTH = "the truth scores better than noise or one color"
UNSEEN = {
    "images in bytes": (
        *(PRIOR, "its images are of its image shape in 0 to 1"),
        *("def draw", "def forward(self, state):\n        return super().forward(state) / 255\n\n    def draw"),
    ),
    "a denoiser of one color": (DENOISER, "it takes noise from images", "x.clamp(0, 1)", "0 * x + 0.5"),
    "a denoiser that does nothing": (DENOISER, "it takes noise from images", "x.clamp(0, 1)", "x"),
    "a metric that is constant": (METRIC, WORTH, ".abs()", ".mul(0)"),
    "a metric of brightness": (METRIC, WORTH, "(reconstruction - truth).abs()", "reconstruction"),
    "a failure that is best": (METRIC, WORTH, "failure=1", "failure=0"),
    "the same images in every split": (DATA, "no image is in two splits", "self.splits.index(self.split)", "0"),
    "images that are all equal": (DATA, "no image is in two splits", "(index + 1)", "1"),
    "a model that keeps its images": (
        *(VICTIM, "it keeps no image that it sees", "return self"),
        "self.__dict__.setdefault('seen', []).append(x)\n        return self",
    ),
    "a defense that does nothing": (DEFENSE, "it changes what a client sends", "g.round(decimals=2)", "g"),
    "a defense of a factor of rounding": (
        DEFENSE,
        "it changes what a client sends",
        "g.round(decimals=2)",
        "g * (1 + 1e-7)",
    ),
    "a defense that sends zeros": (DEFENSE, "it changes what a client sends", "g.round(decimals=2)", "0 * g"),
    "a client that leaves its update behind": (
        *(DEFENSE, "a surrogate depends only on the update", "return {name: g.round(decimals=2)"),
        "Mine.kept = update\n        return {name: g.round(decimals=2)",
        "return lambda gradient: gradient",
        "return lambda gradient: {name: g + Mine.kept[name] for name, g in gradient.items()}",
    ),
}
"""What a run does not see: a file, the contract that fails, and what is written in place of what."""


@pytest.mark.usefixtures("_metrics")
@pytest.mark.parametrize(("code", "contract", "changes"), [(c, k, x) for c, k, *x in UNSEEN.values()], ids=UNSEEN)
def test_what_only_a_check_finds(code, contract, changes, write, capsys):
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        code = changed(code, old, new)
    write("mistake", code)
    assert main(["check", f"mistake.{'mine' if 'def mine' in code else 'Mine'}"]) == 1
    assert f"\nfails  {contract}: " in capsys.readouterr().out


def test_a_reason_is_said_once(write, capsys):
    write("mistake", changed(DEFENSE, "update.items()}", "list(update.items())[1:]}"))
    assert main(["check", "mistake.Mine"]) == 1
    first, *others = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fails  ")]
    assert UPDATE in first
    assert others
    assert all(
        line.endswith(": for the same reason as 'it keeps the names and shapes of an update'") for line in others
    )


ROUND = "{name: g.round(decimals=2) for name, g in update.items()}"
OPEN = "a class defines what its base leaves open"
LABEL = "image, int(self.labels[index])"
OTHERS = {
    "an update that is a list": (DEFENSE, UPDATE, "def __call__", ROUND, "list(update.values())"),
    "an update without a name": (DEFENSE, UPDATE, "def __call__", "update.items()}", "list(update.items())[1:]}"),
    "an update of another shape": (DEFENSE, UPDATE, "def __call__", "g.round(decimals=2)", "g.flatten()"),
    "no estimate": (DEFENSE, OPEN, "class Mine", "def estimate", "def other"),
    "an estimate that takes self": (DEFENSE, STATIC, "def estimate", "    @staticmethod\n", ""),
    "an estimate that gives none": (DEFENSE, SURROGATE, "staticmethod", "lambda gradient: gradient", "received"),
    "a surrogate of no tensors": (DEFENSE, SURROGATE, "lambda", ": gradient", ": dict.fromkeys(gradient, 0)"),
    "images of another shape": (PRIOR, IMAGES, "def __init__", "nn.Upsample(size=size)", "nn.Upsample(size=size // 2)"),
    "no image_shape": (PRIOR, ATTRIBUTES, "def __init__", "self.image_shape", "self.shape"),
    "no blocks": (PRIOR, ATTRIBUTES, "def __init__", "self.blocks", "self.layers"),
    "no draw": (PRIOR, OPEN, "class Mine", "def draw", "def sample"),
    "logits of another shape": (VICTIM, "", "def forward", "x.flatten(1))", "x.flatten(1))[..., None]"),
    "logits of other classes": (VICTIM, "", "def forward", "width, num_classes", "width, 7"),
    "images out of range": (DATA, ITEMS, "def __getitem__", " / 255", ""),
    "images of another size": (DATA, ITEMS, "def __getitem__", "return image", "return image[:, 1:]"),
    "images without a label": (DATA, ITEMS, "def __getitem__", LABEL, "image"),
    "labels of no class": (DATA, ITEMS, "def __getitem__", LABEL, "image, 2"),
    "labels that are names": (DATA, ITEMS, "def __getitem__", LABEL, "image, 'cat'"),
    "labels that are none": (DATA, ITEMS, "def __getitem__", LABEL, "image, None"),
    "no labels": (DATA, SPLIT, "def __init__", "self.labels = torch.arange(64) % 2", "pass"),
    "one label too few": (DATA, SPLIT, "def __init__", "torch.arange(64)", "torch.arange(63)"),
    "no classes": (DATA, SPLIT, "def __init__", "    classes = ", "    names = "),
    "no __getitem__": (DATA, OPEN, "class Mine", "__getitem__", "get"),
    "a score of the batch": (METRIC, SCORES, "@metric", ".amax(dim=(1, 2, 3))", ".amax()"),
    "a metric that raises": (METRIC, SCORES, "return", "- truth)", "- truth[..., 1:])"),
    "a score that is NaN of the truth": (METRIC, SCORES, "@metric", ".abs()", ".abs().div(reconstruction - truth)"),
    "a score that is NaN": (METRIC, SCORES, "@metric", "(reconstruction - truth).abs()", "(truth - 2).sqrt()"),
}  # fmt: skip
"""Of another kind: its file, the contract, the line that is named, and what is written in place of what."""
OPTIONS = {
    DEFENSE: "--defense=mistake.Mine",
    PRIOR: "--prior=mistake.Mine",
    VICTIM: "--victim=mistake.Mine",
    DATA: "--data=mistake.Mine",
    METRIC: "--seed=0",
}


@pytest.fixture
def _metrics():
    yield
    METRICS.pop("mine", None)


@pytest.mark.usefixtures("_metrics")
@pytest.mark.parametrize(("kind", "contract", "marker", "old", "new"), OTHERS.values(), ids=OTHERS)
def test_what_is_wrong_with_another_kind_and_where(kind, contract, marker, old, new, write, tmp_path, capsys):
    code = changed(kind, old, new)
    write("mistake", code)
    if kind is METRIC:
        import_module("mistake")
    assert run(tmp_path, f"--attack={'gi_z' if kind is PRIOR else 'ig'}", "--steps=4", OPTIONS[kind]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("benchmark: ")]
    assert f"the contract '{contract}' is broken: " in said[-1] or kind is VICTIM
    assert place("mistake", code, marker) in said[-1]
    assert not list(tmp_path.glob("out/*/rows.jsonl"))
    open_ends = contract == OPEN  # then nothing can be built
    assert main(["check", f"mistake.{'mine' if kind is METRIC else 'Mine'}"]) == (2 if open_ends else 1)
    found = capsys.readouterr()
    lines = [found.err] if open_ends else [line for line in found.out.splitlines() if line.startswith("fails  ")]
    assert contract in lines[0]
    assert place("mistake", code, marker) in lines[0]
