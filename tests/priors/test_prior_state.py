"""The state of a stopped training that is none: one line and exit code 2, before any step, for both trainings."""

from copy import deepcopy
from functools import reduce

import pytest
import torch

from attacks.giml import GIML
from benchmark.__main__ import main
from priors import train as training
from victims.checkpoints import tensors

COMMANDS = {
    "train": ["--steps=3"],
    "learn": ["--steps=3", "--rounds=1", "--clients=2", "--set=N=1 steps_z=1 tau=1 meta=adam"],
}
STEP = {"train": (training.Game, "done"), "learn": (GIML, "t")}
PLACES = {
    "train": {
        "weights": ("generator", "blocks.0.0.weight"),
        "moments": ("adam_g", 0, "exp_avg"),
        "moments of one": ("adam_d", 0),
        "network": ("discriminator",),
        "count": ("done",),
        "other": ("draws",),
    },
    "learn": {
        "weights": ("giml", "G", "blocks.0.0.weight"),
        "moments": ("giml", "meta", 0, "exp_avg"),
        "moments of one": ("giml", "meta", 0),
        "network": ("giml", "G"),
        "count": ("giml", "t"),
        "other": ("snapshots", 0),
    },
}
TENSOR = {
    "None": lambda old: None,
    "list": lambda old: old.flatten()[:9].tolist(),
    "text": lambda old: "text",
    "flat": lambda old: old.flatten(),
    "one number": lambda old: torch.tensor(0.0),
    "whole numbers": lambda old: old.long(),
    "complex": lambda old: old.to(torch.complex64),
    "NaN": lambda old: old * torch.nan,
}
DICT = {
    "None": lambda old: None,
    "list": lambda old: list(old.values()),
    "empty": lambda old: {},
    "one more": lambda old: {**old, "more": torch.zeros(1)},
}
COUNT = {
    "None": lambda old: None,
    "text": lambda old: "2",
    "fraction": lambda old: 2.5,
    "truth value": lambda old: True,
    "tensor": torch.tensor,
    "negative": lambda old: -1,
    "too large": lambda old: 10**9,
}
SPOILED = {
    **{("weights", name): change for name, change in TENSOR.items()},
    **{("moments", name): TENSOR[name] for name in ("None", "one number", "NaN")},
    **{("moments of one", name): change for name, change in DICT.items()},
    **{("network", name): change for name, change in DICT.items()},
    **{("count", name): change for name, change in COUNT.items()},
    **{("other", name): TENSOR[name] for name in ("None", "text", "one number", "complex")},
    ("other", "NaN or no generator's"): lambda old: torch.zeros_like(old) / (1 if old.dtype == torch.uint8 else 0),
    **{("file", name): change for name, change in DICT.items()},
    ("file", "tensor"): lambda old: torch.zeros(3),
    ("file", "number"): lambda old: 3,
    ("file", "text"): lambda old: "state",
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The states of both trainings after their second step."""
    states = {}
    for kind, (learner, count) in STEP.items():
        out, step = tmp_path_factory.mktemp(kind) / "prior.safetensors", learner.step

        def until(self, *given, step=step, count=count):
            if getattr(self, count) == 2:
                raise KeyboardInterrupt
            return step(self, *given)

        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
            patch.setattr(training, "BATCH", 8)
            patch.setattr(training, "CHECKPOINT_EVERY", 1)
            patch.setattr(learner, "step", until)
            with pytest.raises(KeyboardInterrupt):
                main(["prior", kind, str(out), *COMMANDS[kind]])
        states[kind] = tensors(out.with_suffix(".state"))
    return states


def put(state, place, change):
    """The state with what lies at the place changed."""
    if not place:
        return change(state)
    state = deepcopy(state)
    inner = reduce(lambda part, key: part[key], place[:-1], state)
    inner[place[-1]] = change(inner[place[-1]])
    return state


@pytest.mark.parametrize("spoiled", SPOILED, ids=" ".join)
@pytest.mark.parametrize("kind", COMMANDS)
def test_a_state_that_is_none_is_one_line_before_any_step(kind, spoiled, stopped, tmp_path, monkeypatch, capsys):
    out, (learner, _) = tmp_path / "prior.safetensors", STEP[kind]
    place = () if spoiled[0] == "file" else PLACES[kind][spoiled[0]]
    torch.save(put(stopped[kind], place, SPOILED[spoiled]), out.with_suffix(".state"))
    monkeypatch.setattr(learner, "step", lambda *_: pytest.fail("a step was made"))
    with torch.random.fork_rng():
        assert main(["prior", kind, str(out), *COMMANDS[kind]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "prior.state" in line
    assert "remove it" in line
    assert [path.name for path in tmp_path.iterdir()] == ["prior.state"]
