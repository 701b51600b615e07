"""Which gradient paths a victim allows, found out on random images before the first step.

The images are the smallest that the victim takes as it takes those of a task, so larger ones cost no more.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from typing import cast

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn.functional import one_hot

from attacks.engine.compiled import Compiler
from attacks.engine.distances import Target, cosine, squared_l2
from attacks.engine.factored_gradients import Layers, plain_layers
from attacks.engine.gradients import GradientPaths, PathFn, memory_ran_out, victim_gradients
from attacks.engine.packed import forget
from attacks.engine.surrogate_model import surrogate_model
from victims.client import LocalTraining
from victims.errors import InputError, Notice
from victims.observation import Observation
from victims.small_images import smallest
from victims.trial import said
from victims.victim import Victim, converted

AGREE = {torch.float32: 1e-5, torch.float64: 1e-6}  # relative; measured: rounding 8e-7, a ViT under `vmap` 2e-4
ALIKE = 1e-4  # relative; of logits, which have no derivatives to lose digits in
AT_ONCE = 32  # images; a step on a CPU takes fewer
CONTRASTS = 1, 3, 10  # random images are multiplied by one after another: by 1, 3 and 30 in all
ENOUGH = 2  # images of a batch, to find out whether a path keeps the images of a batch apart


def find_paths(
    observation: Observation,
    local: LocalTraining | None,
    compiler: Compiler,
    own_weights: bool = False,
    joint: bool = False,
) -> GradientPaths:
    """The paths for the victim of an observation.

    Args:
        joint: whether the attack searches labels with the images, which are probabilities then.

    Raises:
        InputError: see `try_paths`.
    """
    known = observation.knowledge.labels
    soft = joint or (known is not None and known.is_floating_point())
    classes = observation.num_classes if soft else None
    probe = Probe(observation.victim, observation.image_shape, observation.batch_size, local, own_weights, classes)
    layers = None if local or own_weights else find_layers(probe)
    needed = layers is None or bool(observation.knowledge.statistics)
    vectorized = needed and vectorizes(probe)
    paths = GradientPaths(observation.victim, local, layers, vectorized, compiler, own_weights)
    try_paths(paths, probe)
    return paths


class Probe:
    """Two batches of random images, on which paths are compared with plain autograd.

    Attributes:
        images: (2, B, C, h, w), normalized, as small as possible. B is at most `ENOUGH`, except for local training.
        labels: (2, B), or probabilities (2, B, K): a loss may take only these.
    """

    def __init__(
        self,
        victim: Victim,
        image_shape: tuple[int, int, int],
        batch_size: int,
        local: LocalTraining | None = None,
        own_weights: bool = False,
        classes: int | None = None,
    ) -> None:
        """
        Args:
            image_shape, batch_size: of the task.
            local: training that is to be repeated, in which every instance gets its own weights.
            own_weights: whether it has its own from the start.
            classes: K, where the labels of the task are probabilities.
        """
        self.victim, self.image_shape, self.batch_size = victim, image_shape, batch_size
        self.local, self.own_weights, self.classes = local, own_weights, classes
        B = batch_size if local else min(batch_size, ENOUGH)
        self.small = smallest(victim, (B, *image_shape))[1:]
        self.images, self.labels = self.batches(2, B)

    def batches(self, n: int, B: int) -> tuple[Tensor, Tensor]:
        """Random images (n, B, C, h, w), normalized, and labels (n, B) or (n, B, K), of class 0 and 1 in turn."""
        x = torch.rand(n, B, *self.small, generator=torch.Generator().manual_seed(0))
        images = self.victim.normalize(x.to(self.victim.mean)).requires_grad_()
        labels = torch.arange(n * B, device=images.device).view(n, B) % 2
        return images, one_hot(labels, self.classes).to(images) if self.classes else labels

    @cached_property
    def exact(self) -> Tensor:
        """The gradient of the last batch's cost by plain autograd, (B, C, h, w).

        One batch suffices: where a path mixes instances, the other one shows in this one's gradient. The contrast of
        the images grows until there is one, for zero agrees with everything.
        """
        plain = partial(victim_gradients, self.victim, local=self.local, vectorized=False)
        for contrast in CONTRASTS:
            self.images = (self.images.detach() * contrast).requires_grad_()
            last = self.images[-1:], self.labels[-1:]
            if (found := cost_gradient(plain, self.victim, *last, self.own_weights)[0]).any():
                break
        return found

    @cached_property
    def double(self) -> "Probe":
        """The same in float64."""
        victim = converted(self.victim, self.images.device, torch.float64)
        return Probe(victim, self.image_shape, self.batch_size, self.local, self.own_weights, self.classes)

    def agrees(self, path_of: Callable[[Victim], PathFn]) -> bool:
        """Whether a path's costs have the gradients of plain autograd, in the victim's precision or else in float64.

        The second derivative is what counts: some layers, such as torch's layer norm, are silently wrong under `vmap`
        when they are differentiated twice.

        Raises:
            Exception: the path cannot run this victim.
        """
        kind, length = self.images.dtype, self.exact.norm()
        fast = cost_gradient(path_of(self.victim), self.victim, self.images, self.labels, self.own_weights)[-1]
        if kind in AGREE and length > 0 and (fast - self.exact).norm() <= AGREE[kind] * length:
            return True
        return kind != torch.float64 and self.double.agrees(path_of)


def cost_gradient(path: PathFn, victim: Victim, images: Tensor, labels: Tensor, own_weights: bool = False) -> Tensor:
    """The gradient in n dummy batches of costs, against the victim's weights as if they had been received.

    Args:
        own_weights: every batch has weights that depend on its images, so that the gradient goes through them too.
    """
    theta = victim.parameters
    target = Target({name: p[None] for name, p in theta.items()})
    if own_weights:
        path = partial(path, theta=surrogate_model(theta, target, images.flatten(1).sigmoid().mean(1)))
    dummy = path(images, labels)
    return torch.autograd.grad((cosine(dummy, target) + squared_l2(dummy, target)).sum(), images)[0]


def vectorizes(probe: Probe) -> bool:
    """Whether `torch.func` runs the victim and agrees with plain autograd; if not, a warning says why."""
    try:
        if probe.agrees(lambda victim: partial(victim_gradients, victim, local=probe.local)):
            return True
        reason = "torch.func and plain autograd disagree on this victim's second derivative"
    except Exception as error:  # of torch, or of the model, which may look at values
        reason = f"torch.func cannot run this victim ({said(error)})"
    warnings.warn(f"{reason}; continuing with one instance after another.", Notice, stacklevel=2)
    return False


def find_layers(probe: Probe) -> Layers | None:
    """The victim's layers; None if its gradient cannot be factored, or differs from plain autograd."""
    victim = probe.victim
    if plain_layers(victim) is None:
        return None
    try:
        vmap(partial(victim.loss, {}))(probe.images, probe.labels)  # raises if a layer looks at values
        if not (keeps_apart(probe) and probe.agrees(lambda victim: cast(PathFn, Layers.of(victim).gradient))):
            return None
        spared, multiplications = work(probe)
        return replace(Layers.of(victim), spared=spared, multiplications=multiplications)
    except Exception:  # a layer that is called twice or not at all, or what a model raises
        return None
    finally:
        forget(victim.model.parameters())  # in the layout for images of this size


@torch.no_grad()
def keeps_apart(probe: Probe) -> bool:
    """Whether a batch has the same logits alone as among as many images as a step may take at once.

    `agrees` sees two batches alone.
    """
    B = probe.batch_size
    images, _ = probe.batches(-(-AT_ONCE // B) + 1, B)
    among, alone = (probe.victim.logits({}, x.flatten(0, 1))[-B:] for x in (images, images[-1:]))
    if (among - alone).norm() <= ALIKE * alone.norm():
        return True
    return images.dtype != torch.float64 and keeps_apart(probe.double)


def work(probe: Probe) -> tuple[int, int]:
    """See `FactoredGradient.work`, for images of the task's size: of larger ones than the probe's by shapes alone."""
    victim, images, labels = probe.victim, probe.images, probe.labels
    if probe.small != probe.image_shape:
        victim, labels = converted(victim, "meta"), labels.to("meta")
        images = victim.mean.new_empty(*images.shape[:2], *probe.image_shape)
    return Layers.of(victim).gradient(images, labels).work(probe.batch_size)


def try_paths(paths: GradientPaths, probe: Probe) -> None:
    """Take every path that a run may choose with its batch size, where the probe has not.

    Raises:
        InputError: the costs have no gradients in the images.
    """
    victim, B = paths.victim, probe.batch_size
    if "exact" in vars(probe) and probe.images.shape[1] == B:
        return
    most = paths.at_once(B, 1) or 2
    for n in {1, min(2, most)}:
        path = paths.choose(n, 1)
        try:
            cost_gradient(path.gradient, victim, *probe.batches(n, B), paths.own_weights)
        except Exception as error:  # of the model's own operations too
            if memory_ran_out(error):  # a stage takes smaller chunks then
                continue
            raise InputError(
                f"the {path.name} gradient of {type(victim.model).__name__} for batches of {B} "
                f"cannot be matched ({said(error)}); choose another --victim or --batch."
            ) from None
