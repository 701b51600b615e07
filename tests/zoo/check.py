"""One model: is what is attacked the gradient of its own training step, on every path that a run would take?"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import gibench
from attacks.ig import IG
from victims.choices import TRAINING, Mode
from victims.errors import InputError, Notice

PREFIXES = ("_orig_mod.", "_module.", "module.")  # of parameters in wrappers
LABELS = torch.tensor([1, 2])
INSTANCES = (1, 2)  # one runs plainly, several at once


@dataclass
class Outcome:
    """What became of a model.

    Attributes:
        refused: the line that refuses it; empty where it runs.
        errors: of the captured update, and of every gradient path at the true images: the distance to the gradient of
            the model's own training step, relative to its norm.
        notices: what was said besides.
    """

    refused: str = ""
    errors: dict[str, float] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def outcome(
    make: Callable[[], nn.Module],
    *,
    shape: tuple[int, int, int],
    mode: Mode = "as_is",
    dtype: torch.dtype | None = torch.float64,
    reference: Callable[[], nn.Module] | None = None,
) -> Outcome:
    """Capture two images' update, take one step of an attack, and compare.

    Args:
        dtype: of model and images; None leaves the model as it is, with images in float32.
        reference: the model in plain torch, where the model itself cannot be trained here.
    """
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(dtype or torch.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            observation = gibench.capture(built(make, dtype), images, LABELS, mode=mode)
            attack = IG(steps=1, restarts=max(INSTANCES))
            attack.begin([observation])
            attack.advance()
        except InputError as refusal:
            return Outcome(refused=str(refusal))
    assert attack.result().cost.isfinite().all()
    assert attack.paths is not None
    notices = [str(warning.message) for warning in caught if issubclass(warning.category, Notice)]
    expected = own_step(built(reference or make, dtype), images.clone(), mode)
    errors = {"update": distance(observation.update, expected)}
    for n in INSTANCES:
        path = attack.paths.choose(n, 1)
        x = observation.victim.normalize(images.to(observation.victim.mean)).repeat(n, 1, 1, 1, 1).requires_grad_()
        dummy = path.gradient(x, LABELS.expand(n, 2))
        errors[path.name] = max(distance({name: g[i] for name, g in dummy.items()}, expected) for i in range(n))
    return Outcome("", errors, notices)


def built(make: Callable[[], nn.Module], dtype: torch.dtype | None) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
    return model.to(dtype) if dtype else model


def own_step(model: nn.Module, images: Tensor, mode: Mode) -> dict[str, Tensor]:
    """The gradient of the model's own training step, in plain torch; zero where it has none."""
    if (training := TRAINING[mode]) is not None:
        model.train(training)
    logits = model(images)
    if logits.shape[1] == 1:
        loss = binary_cross_entropy_with_logits(logits[:, 0], (LABELS % 2).to(logits))
    else:
        loss = cross_entropy(logits, LABELS)
    loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {inner(name): torch.zeros_like(p) if p.grad is None else p.grad for name, p in trained.items()}


def inner(name: str) -> str:
    """A parameter's name without those of wrappers."""
    for prefix in PREFIXES:
        name = name.replace(prefix, "")
    return name


def distance(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Relative to the norm of what is expected."""
    found = {inner(name): g for name, g in found.items()}
    assert list(found) == list(expected)
    far = sum((found[name].detach().double() - g.double()).square().sum() for name, g in expected.items())
    return float((far / sum(g.double().square().sum() for g in expected.values())).sqrt())
