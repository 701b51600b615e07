"""A step is computed where the victim is, and never waits for that device.

`meta`, whose tensors hold no numbers, serves as the device: what reads a number from it, or copies to or from it, is
counted. What torch.tensor copies from Python's numbers is seen on a GPU alone.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_contract import ATTACKS, capture, every_attack, make  # noqa: F401 (fixtures)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attacks.engine.factored_gradients import Layers
from attacks.gias import GIAS
from attacks.gifd import GIFD
from priors.stylegan2 import StyleGAN2
from victims.modules import build
from victims.observation import Observation

WAITS = {
    "ggl": "CMA-ES is numpy",
    "igims": "CMA-ES is numpy",
    "gi_nas": "every round builds other networks on the CPU",
}
"""Attacks whose gradient-free steps wait for the device, and why."""

SET_UP = {"cocktail_party": "its set-up needs numbers, for it refuses most layers; cocktail_party_fi has the same step"}
"""Attacks that do not start on `meta`, and why."""

STEPS = 3  # of every stage; the second is in its middle


class Counter(TorchDispatchMode):
    """Counts operations that wait for `meta`, and answers them with arbitrary numbers."""

    waits = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        aten = torch.ops.aten
        if op is aten._to_copy.default:
            to = torch.device(kwargs.get("device") or tensors[0].device)
            self.waits += to.type != tensors[0].device.type
            if to.type == "cpu" and tensors[0].is_meta:
                return torch.rand(tensors[0].shape).to(kwargs.get("dtype") or tensors[0].dtype)
        elif op is aten.copy_.default:
            self.waits += args[0].device != args[1].device
        elif any(tensor.is_meta for tensor in tensors):
            if op in (aten.item.default, aten._local_scalar_dense.default, aten.is_nonzero.default):
                self.waits += 1
                return op(torch.ones(tensors[0].shape, dtype=tensors[0].dtype))
            if op in (aten.equal.default, aten.allclose.default):
                self.waits += 1
                return True
            assert op not in (aten.nonzero.default, aten.masked_select.default), "its shape depends on numbers"
        return op(*args, **kwargs)


@pytest.fixture(params=["meta", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch) -> str:
    """The device that a step must not wait for."""
    if request.param == "meta":  # torch knows neither generators nor autocast of it
        generator, autocast = torch.Generator, torch.is_autocast_enabled
        monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator())
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda device="cpu": device != "meta" and autocast(device))
    return request.param


@contextmanager
def counting(device: str) -> Iterator[Counter]:
    with Counter() as counter:
        if device == "meta":
            yield counter
            return
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield counter
        finally:
            torch.cuda.set_sync_debug_mode("default")


def moved(observation: Observation, device: str) -> Observation:
    """The same observation there; its victim is moved in place."""
    observation.victim.to(device)
    known = observation.knowledge
    assert known.labels is not None
    return replace(
        observation,
        update={name: g.to(device) for name, g in observation.update.items()},
        knowledge=replace(known, labels=known.labels.to(device)),
    )


def check(attack, capture, device):  # noqa: F811
    """Take all steps for two tasks on the device; compare the waits in the middle of a stage with the table."""
    attack.plan = dict.fromkeys(attack.plan, STEPS)
    one = capture().observation
    observations = [one, capture((8, 30, 77), task="u", victim=one.victim).observation]
    for observation in observations:
        attack.prepare(observation)  # looks at numbers, once for a victim
    attack.to(device)
    session_of = [moved(observation, device) for observation in observations]
    layers = Layers.of(one.victim) if attack.paths.layers else None  # those that were found stay on the CPU
    attack.paths = replace(attack.paths, layers=layers)
    with Counter():
        attack.begin(session_of)
    while attack.session.variables:
        stage, step = attack.session.stage.name, attack.session.step
        assert all(tensor.device.type == device for tensor in attack.session.variables.values())
        if step != 1:
            with Counter():
                attack.advance()
        elif attack.name in WAITS and attack.session.stage.population > 1:
            with Counter() as counter:
                attack.advance()
            assert counter.waits, f"{attack.name} waits for nothing: take it out of the table"
        else:
            with counting(device) as counter:
                attack.advance()
            assert counter.waits == 0, f"step {step} of stage {stage} waits for the device"


SEARCHES = [
    pytest.param(method, name, id=f"{method.name}-{name}", marks=[pytest.mark.slow] if name in method.presets else [])
    for method in ATTACKS.values()
    if not method.analytic
    for name in ("default", *method.presets)
]


@pytest.mark.parametrize(("method", "preset"), SEARCHES)
def test_no_step_in_the_middle_of_a_stage_waits_for_the_device(method, preset, make, capture, device):  # noqa: F811
    if device == "meta" and method.name in SET_UP:
        pytest.skip(SET_UP[method.name])
    small = {"width": 16, "group_from": 0, "refresh": 1, "consensus": "mean", "median_every": 1}
    small["population"] = 2 if method.name == "gi_nas" else 16  # its networks are slow
    own = inspect.signature(method.__init__).parameters
    options = {"steps": None, "compile": "off", **method.presets.get(preset, {}), "restarts": 2}
    options |= {name: value for name, value in small.items() if name in own}
    check(make(method, **options), capture, device)


@pytest.mark.parametrize("method", [GIAS, GIFD])
def test_a_generator_with_noise_of_its_own_is_searched_without_waiting(method, capture, device):  # noqa: F811
    prior = build(StyleGAN2, seed=0, size=32, width=4, style_dim=4, layers_mapping=2).eval().requires_grad_(False)
    redrawn = {"noise": "redrawn"} if method is GIAS else {}
    check(method(prior=prior, restarts=2, compile="off", **redrawn), capture, device)
