"""The victim's gradient at many dummy batches at once, differentiable in the images, and the choice of its path.

Three paths compute the same gradient up to rounding: `plain`, one dummy batch after another by autograd; `vectorized`,
all at once by `torch.func`; and `factored`, layer by layer, without forming the large tensors. A function that uses any
of them can be compiled.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.func import grad, vmap

from attacks.engine.compiled import Compiler, Function
from attacks.engine.distances import cosine, squared_l2
from attacks.engine.factored_gradients import Layers, plain_layers
from attacks.engine.surrogate_model import surrogate_model
from victims.client import GradientFn, LocalTraining, idle_parameters, mean_direction
from victims.errors import InputError, Notice
from victims.observation import Observation
from victims.trial import said
from victims.victim import Gradient, Statistics, Victim, batch_statistics, gradient_at

AGREE = 1e-6  # relative, in float64
LARGE = 1 << 20  # entries; measured: one instance alone is slower factored with 0.1 million, faster with 11 million
CPU_IMAGES = 4  # measured: with more images, grouped convolutions of many instances are slower than one by one
CPU_FACTORED = 16  # measured: convolutions run on one large batch, and more images do not fit into the caches
CPU_CANDIDATES = 25  # of a gradient-free step, which keeps nothing for a backward pass

PathFn = Callable[..., Gradient]
"""Images (R, B, C, H, W), normalized, and labels, classes (R, B) or probabilities (R, B, K) -> d loss / d theta,
(R, *shape) per parameter. `theta=` are the weights of every instance, (R, *shape) each; by default the victim's. The
factored path does not take them, for it needs the same weights for all."""


def victim_gradients(
    victim: Victim,
    images: Tensor,
    labels: Tensor,
    *,
    theta: Gradient | None = None,
    local: LocalTraining | None = None,
    vectorized: bool = True,
) -> Gradient:
    """d loss / d theta for every instance, or after local training `Observation.gradient`.

    Args:
        images: (R, B, C, H, W), normalized.
        labels: (R, B) classes, or (R, B, K) probabilities.
        theta: the weights of every instance, (R, *shape) each; by default the victim's. The result is differentiable
            in them.
        local: with its learning rate; the result is differentiable through all of its steps. Clients and mini-batches
            are cut from the batch in its order.
        vectorized: all instances as one `torch.func` computation; otherwise one after another by plain autograd, which
            works for every victim.

    Returns:
        (R, *shape) per parameter.
    """

    idle = idle_parameters(victim, images[0], labels[0], local) if local else frozenset()

    def of_instance(gradient_fn: GradientFn, at: Gradient, x: Tensor, y: Tensor) -> Gradient:
        if local is None:
            return gradient_fn(at, x, y)
        return local.as_gradient(mean_direction(gradient_fn, at, x, y, local, idle), at, len(x))

    shared = victim.parameters
    if vectorized:
        each = partial(of_instance, grad(victim.loss))
        return vmap(each)(theta, images, labels) if theta else vmap(partial(each, shared))(images, labels)
    gradient_fn = partial(gradient_at, victim, create_graph=torch.is_grad_enabled())
    with torch.enable_grad():
        places = [{name: p[k] for name, p in theta.items()} if theta else shared for k in range(len(images))]
        first, *others = (of_instance(gradient_fn, *case) for case in zip(places, images, labels, strict=True))
    if not others:
        return {name: g[None] for name, g in first.items()}  # without a copy: it may be large
    return {name: torch.stack([g, *(other[name] for other in others)]) for name, g in first.items()}


@dataclass(frozen=True)
class GradientPath:
    """One way to compute the victim's gradient.

    Attributes:
        name: plain, vectorized or factored.
        compiler: for functions that use this path; None where compiling is not worth its time.
    """

    name: str
    gradient: PathFn
    compiler: Compiler | None = None

    def prepare(self, function: Function, inputs: Sequence[Tensor]) -> tuple[str, Function]:
        """The function for repeated calls on inputs of these shapes, compiled if possible, and the name of the path."""
        fast = self.compiler(function, inputs) if self.compiler else function
        return self.name if fast is function else f"{self.name}+compiled", fast


@dataclass(frozen=True)
class GradientPaths:
    """The paths that are possible for a victim, found by `probe`.

    Attributes:
        local: training that is repeated on the dummy batch; None for one gradient.
        layers: the victim's, if its gradient can be factored.
        vectorized: whether `torch.func` works for this victim; not probed where `layers` make it unnecessary.
        compiler: None never compiles.
        own_weights: whether every instance has weights of its own, see `attacks.engine.surrogate_model`.
    """

    victim: Victim
    local: LocalTraining | None = None
    layers: Layers | None = None
    vectorized: bool = False
    compiler: Compiler | None = None
    own_weights: bool = False

    @classmethod
    def probe(
        cls,
        observation: Observation,
        local: LocalTraining | None,
        compiler: Compiler,
        own_weights: bool = False,
    ) -> "GradientPaths":
        """Find the paths for the victim of an observation, on random images of its shape.

        Raises:
            InputError: see `admit`.
        """
        case = observation.victim, observation.image_shape, observation.batch_size
        layers = None if local or own_weights else find_layers(*case)
        needed = layers is None or bool(observation.knowledge.statistics)
        vectorized = needed and vectorizes(*case, local, own_weights)
        found = cls(observation.victim, local, layers, vectorized, compiler, own_weights)
        found.admit(*case[1:])
        return found

    def choose(self, n: int, evaluations: int) -> GradientPath:
        """The fastest path for n dummy batches at once, as measured.

        Args:
            evaluations: how often the stage evaluates its objective, which decides about compiling.
        """
        device = self.victim.mean.device
        compiler = self.compiler if self.compiler and self.compiler.repays(evaluations, device) else None
        if self.layers and (n > 1 or self.layers.spared > LARGE):
            return GradientPath("factored", cast(PathFn, self.layers.gradient), compiler)
        vectorized = self.vectorized and n > 1  # one batch is faster without
        gradient = partial(victim_gradients, self.victim, local=self.local, vectorized=vectorized)
        return GradientPath("vectorized" if vectorized else "plain", gradient, compiler)

    def admit(self, image_shape: tuple[int, int, int], batch_size: int) -> None:
        """Take every path that a run may choose, with its batch size and in its precision.

        Raises:
            InputError: the costs have no gradients in the images.
        """
        most = self.at_once(batch_size, 1) or 2
        for n in {1, min(2, most)}:
            path = self.choose(n, 1)
            x = torch.rand(n, batch_size, *image_shape, generator=torch.Generator().manual_seed(0))
            images = self.victim.normalize(x.to(self.victim.mean)).requires_grad_()
            labels = torch.zeros(n, batch_size, dtype=torch.long, device=images.device)
            try:
                cost_gradient(path.gradient, self.victim, images, labels, self.own_weights)
            except Exception as error:  # of the model's own operations too
                if memory_ran_out(error):  # a stage takes smaller chunks then
                    continue
                raise InputError(
                    f"the {path.name} gradient of {type(self.victim.model).__name__} for batches of {batch_size} "
                    f"cannot be matched ({said(error)}); choose another --victim or --batch."
                ) from None

    def at_once(self, batch_size: int, population: int) -> int | None:
        """How many dummy batches to evaluate at once on this device; None for all."""
        if self.victim.mean.device.type != "cpu":
            return None
        images = CPU_IMAGES if not self.layers else CPU_FACTORED if population == 1 else CPU_CANDIDATES
        return max(1, images // batch_size)

    def statistics(self, images: Tensor) -> Statistics:
        """Batch-norm statistics of every instance's normalized images (R, B, C, H, W): (R, 2, C) per layer."""
        if self.vectorized:
            return vmap(partial(batch_statistics, self.victim))(images)
        each = [batch_statistics(self.victim, x) for x in images]
        return {name: torch.stack([statistics[name] for statistics in each]) for name in each[0]}


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
    modules = plain_layers(victim)
    if modules is None:
        return None
    probe = Probe(victim, image_shape, min(batch_size, 2))
    layers = Layers(probe.victim, plain_layers(probe.victim) or {})
    try:
        vmap(partial(probe.victim.loss, {}))(probe.images, probe.labels)  # raises if a layer looks at values
        if not probe.agrees(cast(PathFn, layers.gradient)):
            return None
        spared = layers.gradient(probe.images, probe.labels).spared(batch_size)
    except Exception:  # a layer that is called twice or not at all, or what a model raises
        return None
    return Layers(victim, modules, spared)


def memory_ran_out(error: Exception) -> bool:
    """Of a GPU torch says so by a class of its own, of a CPU only in words, which are also its library's (oneDNN)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "bad_alloc", "could not create a primitive"))
