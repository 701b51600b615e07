"""The contracts of every victim, at 32 pixels and 10 classes."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import torch
from torch import nn

from attacks.engine.gradients import victim_gradients
from benchmark.check.fails import alike, require
from benchmark.check.reach import holds, reachable
from benchmark.check.small import BATCH, small_task
from victims import by_name
from victims.classifier import classifiers
from victims.losses.cross_entropy import CrossEntropy
from victims.modules import build
from victims.victim import Victim

Make = Callable[..., nn.Module]
SHAPE, CLASSES = (3, 32, 32), 10


def one(make: Make, seed: int = 0, size: int = 32) -> nn.Module:
    return build(make, image_shape=(3, size, size), num_classes=CLASSES, seed=seed)


def the_engine_takes_it(make: Make) -> None:
    """It gives logits (B, K), the same in every pass, and has a gradient that torch differentiates again."""
    own = make.func if isinstance(make, partial) else make
    spec = f"{own.__module__}.{own.__qualname__}"
    by_name.tried(make, spec, False, image_shape=SHAPE, num_classes=CLASSES)


def it_gives_logits_of_its_classes(make: Make) -> None:
    """Or one logit, as R-GAP's models."""
    with torch.no_grad():
        logits = one(make).eval()(torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0)))
    wrong = f"logits of 2 images are {tuple(logits.shape)}, not (2, {CLASSES})"
    require(logits.shape in ((2, CLASSES), (2, 1)), wrong, make)
    require(logits.isfinite().all(), "logits are not finite", make)


def its_weights_come_from_the_seed(make: Make) -> None:
    found = []
    for earlier, seed in ((1, 5), (2, 5), (3, 6)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(earlier)  # draws before do not matter
            found.append(one(make, seed).state_dict())
    first, again, other = found
    require(all(torch.equal(first[n], again[n]) for n in first), "the same seed gives other weights", make)
    differ = any(not torch.equal(first[n], other[n]) for n in first)
    require(differ, "another seed gives the same weights; take torch's global generator", make)


def logits_of_an_image_do_not_depend_on_its_batch(make: Make) -> None:
    """In eval mode."""
    model = one(make).eval()
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = model(images)[1:2], model(images[1:2])
    alike(together, alone, "logits of an image in a batch and alone", make, rtol=1e-4, atol=1e-5)


def captured_and_dummy_gradients_are_those_of_plain_autograd(
    make: Make, training: bool = False, size: int = 32
) -> None:
    model = one(make, size=size).double()
    victim = Victim(model, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), training=training)
    task = small_task(BATCH[:2], size=size, victim=victim, rate=None)
    plain = deepcopy(model).train(training)
    images = (task.images.double() - victim.mean) / victim.std
    CrossEntropy()(plain(images), task.labels).backward()
    dummy = victim_gradients(victim, images[None], task.labels[None])
    grads = {key: parameter.grad for key, parameter in plain.named_parameters() if parameter.grad is not None}
    atol = 1e-9 * max(float(grad.abs().max()) for grad in grads.values())
    for key, grad in grads.items():
        alike(task.observation.update[key], grad, f"{key} of the update and by autograd", make, rtol=1e-7, atol=atol)
        alike(dummy[key][0], grad, f"{key} of the dummy gradient and by autograd", make, rtol=1e-7, atol=atol)


def it_keeps_no_image_that_it_sees(make: Make) -> None:
    """A client computes on a copy of it; still, what is in a model can be saved and sent with it."""
    victim = Victim(one(make), mean=(0.5,) * 3, std=(0.2,) * 3)
    task = small_task(BATCH[:2], size=SHAPE[1], victim=victim, rate=None)
    with torch.no_grad():
        victim.logits(victim.parameters, victim.normalize(task.images))
        victim.model(victim.normalize(task.images))
    found = holds(reachable(task.observation, victim.model), task.images, victim)
    require(not found, "it keeps an image that it was given, where an attack can read it", victim.model.forward, make)


def its_last_layer_is_linear(make: Make) -> None:
    """Label methods and some attacks read its gradient."""
    victim, given = Victim(one(make), mean=(0.5,) * 3, std=(0.2,) * 3), []
    layer = victim.model.get_submodule(*classifiers(victim.model, SHAPE))
    layer.register_forward_hook(lambda _m, _given, out: given.append(out))
    with torch.no_grad():
        logits = victim.logits(victim.parameters, torch.rand(1, *SHAPE))
    require(torch.equal(given[0], logits), "its last linear layer does not give the logits", make)


CONTRACTS: list[Callable[[Make], None]] = [
    the_engine_takes_it,
    it_gives_logits_of_its_classes,
    its_weights_come_from_the_seed,
    logits_of_an_image_do_not_depend_on_its_batch,
    captured_and_dummy_gradients_are_those_of_plain_autograd,
    its_last_layer_is_linear,
    it_keeps_no_image_that_it_sees,
]
