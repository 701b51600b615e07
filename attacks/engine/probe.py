"""Which gradient paths a victim allows, found out on random images before the first step."""

import copy
import warnings
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.func import vmap

from attacks.engine.compiled import Compiler
from attacks.engine.distances import cosine, squared_l2
from attacks.engine.factored_gradients import Layers, plain_layers
from attacks.engine.gradients import GradientPaths, PathFn, memory_ran_out, victim_gradients
from attacks.engine.surrogate_model import surrogate_model
from victims.client import LocalTraining
from victims.errors import InputError, Notice
from victims.observation import Observation
from victims.trial import said
from victims.victim import Victim

AGREE = 1e-6  # relative, in float64


def find_paths(
    observation: Observation, local: LocalTraining | None, compiler: Compiler, own_weights: bool = False
) -> GradientPaths:
    """The paths for the victim of an observation, found on random images of its shape.

    Raises:
        InputError: see `admit`.
    """
    case = observation.victim, observation.image_shape, observation.batch_size
    layers = None if local or own_weights else find_layers(*case)
    needed = layers is None or bool(observation.knowledge.statistics)
    vectorized = needed and vectorizes(*case, local, own_weights)
    found = GradientPaths(observation.victim, local, layers, vectorized, compiler, own_weights)
    admit(found, *case[1:])
    return found


def admit(paths: GradientPaths, image_shape: tuple[int, int, int], batch_size: int) -> None:
    """Take every path that a run may choose, with its batch size and in its precision.

    Raises:
        InputError: the costs have no gradients in the images.
    """
    victim, most = paths.victim, paths.at_once(batch_size, 1) or 2
    for n in {1, min(2, most)}:
        path = paths.choose(n, 1)
        x = torch.rand(n, batch_size, *image_shape, generator=torch.Generator().manual_seed(0))
        images = victim.normalize(x.to(victim.mean)).requires_grad_()
        labels = torch.zeros(n, batch_size, dtype=torch.long, device=images.device)
        try:
            cost_gradient(path.gradient, victim, images, labels, paths.own_weights)
        except Exception as error:  # of the model's own operations too
            if memory_ran_out(error):  # a stage takes smaller chunks then
                continue
            raise InputError(
                f"the {path.name} gradient of {type(victim.model).__name__} for batches of {batch_size} "
                f"cannot be matched ({said(error)}); choose another --victim or --batch."
            ) from None


class Probe:
    """A copy of the victim in float64 and two random batches, on which a path is compared with plain autograd."""

    def __init__(self, victim: Victim, image_shape: tuple[int, int, int], batch_size: int) -> None:
        self.victim = copy.deepcopy(victim).to(victim.mean.device, torch.float64)
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(2, batch_size, *image_shape, generator=generator, dtype=torch.float64)
        self.images = self.victim.normalize(x.to(victim.mean.device)).requires_grad_()
        self.labels = torch.zeros(2, batch_size, dtype=torch.long, device=self.images.device)

    def agrees(self, path: PathFn, local: LocalTraining | None = None, own_weights: bool = False) -> bool:
        """Whether the path's costs have the gradients of plain autograd.

        The second derivative is what counts: some layers, such as torch's layer norm, are silently wrong under `vmap`
        when they are differentiated twice.

        Raises:
            Exception: the path cannot run this victim.
        """
        plain = partial(victim_gradients, self.victim, local=local, vectorized=False)
        case = self.victim, self.images, self.labels, own_weights
        fast, exact = (cost_gradient(gradient, *case) for gradient in (path, plain))
        return bool((fast - exact).norm() <= AGREE * exact.norm())


def cost_gradient(path: PathFn, victim: Victim, images: Tensor, labels: Tensor, own_weights: bool = False) -> Tensor:
    """The gradient in n dummy batches of costs, against the victim's weights as if they had been received.

    Args:
        own_weights: every batch has weights that depend on its images, so that the gradient goes through them too.
    """
    theta = victim.parameters
    target = {name: p.expand(len(images), *p.shape) for name, p in theta.items()}
    if own_weights:
        path = partial(path, theta=surrogate_model(theta, target, images.flatten(1).sigmoid().mean(1)))
    dummy = path(images, labels)
    return torch.autograd.grad((cosine(dummy, target) + squared_l2(dummy, target)).sum(), images)[0]


def vectorizes(
    victim: Victim,
    image_shape: tuple[int, int, int],
    batch_size: int,
    local: LocalTraining | None = None,
    own_weights: bool = False,
) -> bool:
    """Whether `torch.func` runs this victim and agrees with plain autograd; if not, a warning says why.

    Args:
        local: training that is to be repeated, in which every instance gets its own weights.
        own_weights: whether it has its own from the start.
    """
    probe = Probe(victim, image_shape, batch_size if local else min(batch_size, 2))
    try:
        if probe.agrees(partial(victim_gradients, probe.victim, local=local), local, own_weights):
            return True
        reason = "torch.func and plain autograd disagree on this victim's second derivative"
    except Exception as error:  # of torch, or of the model, which may look at values
        reason = f"torch.func cannot run this victim ({said(error)})"
    warnings.warn(f"{reason}; continuing with one instance after another.", Notice, stacklevel=2)
    return False


def find_layers(victim: Victim, image_shape: tuple[int, int, int], batch_size: int) -> Layers | None:
    """The victim's layers; None if its gradient cannot be factored, or differs from plain autograd.

    Images do not interact in these layers, so two of any batch are enough to find out.
    """
    if plain_layers(victim) is None:
        return None
    probe = Probe(victim, image_shape, min(batch_size, 2))
    try:
        layers = Layers.of(probe.victim)
        vmap(partial(probe.victim.loss, {}))(probe.images, probe.labels)  # raises if a layer looks at values
        if not probe.agrees(cast(PathFn, layers.gradient)):
            return None
        spared, multiplications = layers.gradient(probe.images, probe.labels).work(batch_size)
        return replace(Layers.of(victim), spared=spared, multiplications=multiplications)
    except Exception:  # a layer that is called twice or not at all, or what a model raises
        return None
