"""The victim's gradient at many dummy batches at once, differentiable in the images, and the choice of its path.

Three paths compute the same gradient up to rounding: `plain`, one dummy batch after another by autograd; `vectorized`,
all at once by `torch.func`; and `factored`, layer by layer, without forming the large tensors. A function that uses any
of them can be compiled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.func import grad, vmap

from attacks.engine.compiled import Compiler, Function
from attacks.engine.factored_gradients import Layers
from victims.client import GradientFn, LocalTraining, idle_parameters, mean_direction
from victims.victim import Gradient, Statistics, Victim, batch_statistics, gradient_at

LARGE = 1 << 20  # entries; measured: one instance alone is slower factored with 0.1 million, faster with 11 million
DEEP = 1 << 24  # multiplications; measured: factored takes the same time with 13 million, and 4/5 with 200 million
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
    """The paths that are possible for a victim, see `attacks.engine.probe.find_paths`.

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

    def are_for(self, victim: Victim, local: LocalTraining | None, own_weights: bool) -> bool:
        """Whether they compute the gradients of this victim, with this training repeated, and these weights."""
        return self.victim is victim and (self.local, self.own_weights) == (local, own_weights)

    def choose(self, n: int, evaluations: int) -> GradientPath:
        """The fastest path for n dummy batches at once, as measured.

        Args:
            evaluations: how often the stage evaluates its objective, which decides about compiling.
        """
        device = self.victim.mean.device
        compiler = self.compiler if self.compiler and self.compiler.repays(evaluations, device) else None
        deep = DEEP // 2 if compiler else DEEP  # compiled, it takes 9/10 with 13 million, but 9/8 with 0.7 million
        if self.layers and (n > 1 or self.layers.spared > LARGE or self.layers.multiplications > deep):
            return GradientPath("factored", cast(PathFn, self.layers.gradient), compiler)
        vectorized = self.vectorized and n > 1  # one batch is faster without
        gradient = partial(victim_gradients, self.victim, local=self.local, vectorized=vectorized)
        return GradientPath("vectorized" if vectorized else "plain", gradient, compiler)

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


def memory_ran_out(error: Exception) -> bool:
    """Of a GPU torch says so by a class of its own, of a CPU only in words, which are also its library's (oneDNN)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "bad_alloc", "could not create a primitive"))
