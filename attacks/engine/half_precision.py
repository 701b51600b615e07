"""In which precision an attacker computes, where the client's model is of half precision."""

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from victims.errors import Notice
from victims.observation import Observation
from victims.trial import noise, said
from victims.victim import converted

HALF = (torch.bfloat16, torch.float16)  # in the order of their rounding: most numbers of the first are of both


def in_single_precision(observation: Observation) -> Observation:
    """The same, with model and update in float32, where the model is of half precision.

    Costs and steps in half precision are rounding: 1 - cosine is 0 long before the images are right. The attacker has
    the model, and need not compute as the client did. A Notice says where the model runs in its own precision alone.
    """
    victim = observation.victim
    if victim.mean.dtype not in HALF:
        return observation
    wide = converted(victim, victim.mean.device, torch.float32)
    try:
        with torch.no_grad():
            wide.logits(wide.parameters, noise(wide, (observation.batch_size, *observation.image_shape)))
    except Exception as error:  # of the model's own operations
        kind = str(victim.mean.dtype).removeprefix("torch.")
        warnings.warn(
            f"{type(victim.model).__name__} runs in {kind} alone ({said(error)}): costs in {kind} are rounding, and "
            "the result says little of the leak. Give a model that runs in float32 too.",
            Notice,
            stacklevel=3,
        )
        return observation

    def single(tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.is_floating_point() else tensor

    known = observation.knowledge
    return replace(
        observation,
        victim=wide,
        update={name: single(g) for name, g in observation.update.items()},
        knowledge=replace(
            known,
            labels=None if known.labels is None else single(known.labels),
            statistics=known.statistics and {name: single(s) for name, s in known.statistics.items()},
        ),
    )


def half_type(observation: Observation) -> torch.dtype | None:
    """Half precision in which a client computed: the type that has all numbers of its weights and its update.

    It shows in the numbers, also where `in_single_precision` has made them float32.
    """
    numbers = [*observation.victim.parameters.values(), *observation.update.values()]
    return next((t for t in HALF if all(torch.equal(n.to(t).to(n.dtype), n) for n in numbers)), None)
