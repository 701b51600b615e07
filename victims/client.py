"""What a client computes from its private batch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from math import ceil
from operator import add

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from victims.batch_norm import batch_norms
from victims.choices import Level
from victims.data.base import ImageData
from victims.errors import InputError
from victims.modules import modes_kept, passing
from victims.optimizers.base import Optimizer, State
from victims.optimizers.sgd import SGD
from victims.preprocessing import Preprocessing
from victims.ranges import above_zero, at_least
from victims.victim import Gradient, Statistics, Victim, batch_statistics, gradient_at
from victims.wrappers import copied

MOMENTUM = 0.1  # of torch's batch norm
PLAIN = SGD()

GradientFn = Callable[[Gradient, Tensor, Tensor], Gradient]
"""Weights, normalized images (b, C, H, W) and their labels -> d loss / d theta."""


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """Training of every client on its own images, before the server averages their weights (FedAvg).

    McMahan et al., *Communication-Efficient Learning of Deep Networks from Decentralized Data*, AISTATS 2017,
    algorithm 1. A client cuts its images into mini-batches in the order of the batch. They are the same in every epoch,
    as in the attack of Geiping et al., 2020. For B images a client takes T = epochs * ceil(B / clients / mini_batch)
    steps.

    Attributes:
        epochs: passes over a client's images.
        mini_batch: images per step; the last step of an epoch takes the rest. None: all images of the client.
        clients: each has an equal share of the batch, and the server sees only the mean of what they send.
        lr: the learning rate; None if an attacker does not know it.
        optimizer: of the local steps. The server's own, such as its momentum, comes after the updates that the attacker
            sees, for the attacker is the server; so it has no place here.

    Raises:
        InputError: a count below 1, or a learning rate that is not above 0.
    """

    epochs: int = 1
    mini_batch: int | None = None
    clients: int = 1
    lr: float | None = None
    optimizer: Optimizer = PLAIN

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, mini_batch=self.mini_batch, clients=self.clients)
        above_zero(lr=self.lr)

    def known_lr(self) -> float:
        """The learning rate of a client, or of an attacker who repeats its training."""
        assert self.lr is not None, "only an attacker can lack the learning rate, and then nothing is repeated"
        return self.lr

    def schedule(self, batch_size: int) -> list[list[slice]]:
        """For every client, the images of each of its T steps.

        Raises:
            InputError: the clients cannot have equal shares.
        """
        share, left = divmod(batch_size, self.clients)
        if left or not share:
            raise InputError(
                f"{batch_size} images cannot be shared out evenly over {self.clients} clients; give a batch that is a "
                "multiple of them."
            )
        size = self.mini_batch or share
        return [
            [slice(at, min(at + size, first + share)) for at in range(first, first + share, size)] * self.epochs
            for first in range(0, batch_size, share)
        ]

    def steps(self, batch_size: int) -> int:
        """T, the steps of one client."""
        return len(self.schedule(batch_size)[0])

    def as_gradient(self, moved: Gradient, theta: Gradient | None, batch_size: int) -> Gradient:
        """(theta_0 - theta_T) / (lr T) in units of a gradient, without weight decay: to first order in lr.

        Under plain SGD it is that already. Entries that are zero were not sent, and stay zero.

        Args:
            theta: theta_0; None leaves the weight decay in.
        """
        steps = self.steps(batch_size)
        often, decay = self.optimizer.counts(steps), self.optimizer.decay
        if often == steps and (theta is None or not decay):
            return moved
        scaled = {name: steps / often * d for name, d in moved.items()}
        if theta is None:
            return scaled
        return {name: (d - decay * theta[name]).where(d != 0, 0) for name, d in scaled.items()}

    def least_gradient(self, theta: Gradient, batch_size: int) -> Gradient:
        """Below which an entry of `as_gradient` cannot be told from weight decay alone; nothing without decay.

        An entry whose gradient is zero, as where Soteria prunes, moves by the decay alone. What is left of it are the
        rounding of theta, of which every step may add half a unit, and the second order in lr.
        """
        lr, decay = self.known_lr(), self.optimizer.decay
        if not decay:
            return {}
        often = self.optimizer.counts(self.steps(batch_size))
        return {name: p.abs() * (torch.finfo(p.dtype).eps / lr + decay**2 * lr * often) for name, p in theta.items()}


def fed_sgd(victim: Victim, images: Tensor, labels: Tensor, gradient_fn: GradientFn | None = None) -> Gradient:
    """FedSGD: the gradient of the mean loss over the batch.

    Args:
        images: (B, C, H, W) in [0, 1].
        labels: (B,).
        gradient_fn: how the client computes a gradient; by default plainly.
    """
    gradient_fn = gradient_fn or partial(gradient_at, victim)
    return {name: g.detach() for name, g in gradient_fn(victim.parameters, victim.normalize(images), labels).items()}


def fed_avg(
    victim: Victim, images: Tensor, labels: Tensor, local: LocalTraining, gradient_fn: GradientFn | None = None
) -> Gradient:
    """FedAvg: theta_0 - theta_T, where theta_T is the mean over the clients.

    It is lr times the sum of T directions of the local optimizer, which are gradients under plain SGD. What is lost
    when the weights are rounded never reaches the server.

    Args:
        images: (B, C, H, W) in [0, 1].
        labels: (B,).
        gradient_fn: how a client computes a gradient; by default plainly.

    Raises:
        InputError: the clients cannot have equal shares.
    """
    theta = victim.parameters
    x = victim.normalize(images)
    if local.steps(len(images)) > 1 and keeps_state(victim, x):
        raise InputError(
            f"a pass of {type(victim.model).__name__} changes what the next one gives, as spectral norm does in train "
            "mode, so that a local step depends on those before; give one local step, or eval mode."
        )
    idle = idle_parameters(victim, x, labels, local)
    mean = mean_direction(gradient_fn or partial(gradient_at, victim), theta, x, labels, local, idle)
    moved = local.known_lr() * local.steps(len(images))
    return {name: (p - (p - moved * mean[name])).detach() for name, p in theta.items()}


def keeps_state(victim: Victim, images: Tensor) -> bool:
    """Whether a pass of normalized images (B, C, H, W) leaves something in the model that moves the logits of the next.

    A victim forgets it; a client that trains does not.
    """
    model, entering = copied(victim.model), victim.enter(images)
    first, second = (model(entering.clone()).detach() for _ in range(2))
    return not torch.allclose(first, second, rtol=1e-4, atol=1e-6)


def idle_parameters(victim: Victim, images: Tensor, labels: Tensor, local: LocalTraining) -> frozenset[str]:
    """The names of the parameters that are not in the loss, where a client's optimizer would move them by weight decay.

    Torch's optimizers leave them where they are, for they have no gradient; one of zeros would not say so.

    Args:
        images: (B, C, H, W), normalized; the first step's are looked at.
    """
    if not local.optimizer.decays:
        return frozenset()
    first = local.schedule(len(images))[0][0]
    return victim.idle(images[first], labels[first])


def mean_direction(
    gradient_fn: GradientFn,
    theta: Gradient,
    images: Tensor,
    labels: Tensor,
    local: LocalTraining,
    idle: frozenset[str] = frozenset(),
) -> Gradient:
    """(theta_0 - theta_T) / (lr T), the mean over the clients: under plain SGD the mean of the gradients of all steps.

    Args:
        theta: theta_0.
        images: (B, C, H, W), normalized.
        labels: (B,) classes, or (B, num_classes) probabilities.
        idle: names of the weights that stay where they are, unless a defense gives them a gradient.
    """
    lr, found = local.known_lr(), []
    for steps in local.schedule(len(images)):
        total = {name: torch.zeros_like(p) for name, p in theta.items()}
        state: State = {}
        for step, part in enumerate(steps, start=1):
            now = {name: p - lr * total[name] for name, p in theta.items()}
            g = gradient_fn(now, images[part], labels[part])
            d = local.optimizer.direction(now, g, state, step)
            d |= {name: d[name].where(g[name].any(), 0) for name in idle}
            total = {name: so_far + d[name] for name, so_far in total.items()}
        found.append({name: of_steps / len(steps) for name, of_steps in total.items()})
    return {name: reduce(add, (of_client[name] for of_client in found)) / local.clients for name in theta}


def calibrate(
    model: nn.Module, data: ImageData, preprocessing: Preprocessing, batches: int = 8, size: int = 64
) -> None:
    """Give a model's batch norm the running statistics of evenly spaced images, as if it had trained on them.

    Args:
        batches, size: see `evenly_spaced`.

    Raises:
        InputError: the model keeps none, or there is a single image, which has no variance in a layer of one position.
    """
    if not any(getattr(module, "track_running_stats", False) for module in model.modules()):
        raise InputError(
            f"{type(model).__name__} keeps no running statistics to calibrate; use --victim-weights random."
        )
    parts = evenly_spaced(data, batches, size)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), modes_kept(model):
        torch.manual_seed(0)  # for models with dropout
        try:
            update_bn([preprocessing.normalize(images) for images in parts], model)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):  # torch's words
                raise
            raise InputError(
                f"running statistics of {type(model).__name__} need two train images or more; give --data with more, "
                "or --victim-weights random."
            ) from None


def evenly_spaced(data: ImageData, batches: int = 8, size: int = 64) -> tuple[Tensor, ...]:
    """Images of a data set for running statistics, in which every batch counts the same.

    Args:
        batches: of `size` images; where the data set has more, up to twice as many.
        size: of a batch, at most: they are of equal size, give or take one image.
    """
    images, _ = data.batch(data.sample(batches * size))
    return images.tensor_split(ceil(len(images) / size))


def known_statistics(
    victim: Victim, images: Tensor, level: Level, local: LocalTraining | None = None
) -> Statistics | None:
    """The batch-norm statistics that an attacker of this level knows.

    - `none`: nothing.
    - `running`: the model's own running statistics, which every participant has.
    - `recovered`: the client shares its running statistics after its step, as in FedAvg with batch norm. The attacker
      computes the batch's statistics from those before and after.
    - `exact`: those of the private batch, which published attacks often assume.

    Args:
        images: (B, C, H, W) in [0, 1].
        local: the clients' training, under FedAvg. `exact` ones are those of the whole batch before it.

    Raises:
        InputError: the victim has no such statistics, or they are mixed with others.
    """
    if level == "none":
        return None
    if not victim.running:
        raise InputError(f"{type(victim.model).__name__} keeps no running batch-norm statistics; choose --bn none.")
    if level == "running":
        called = victim.batch_norm_inputs(victim.normalize(images))
        return {name: s for name, s in victim.running.items() if name in called}
    if level == "exact":
        return {name: s.detach() for name, s in batch_statistics(victim, victim.normalize(images)).items()}
    if not victim.moving:
        raise InputError(
            "no plain batch norm of this victim is in train mode, so no running statistics are known to move, and none "
            "can be recovered; add --victim-mode train, or choose another --bn."
        )
    if local and local.schedule(len(images)) != [[slice(0, len(images))]]:
        raise InputError(
            "running statistics of several local steps or clients mix those of several batches and weights, which "
            "cannot be told apart; give one client one step on all its images, or another --bn."
        )
    with passing(batch_norms(victim.model)) as seen:
        victim.logits(victim.parameters, victim.normalize(images))
    if twice := [name for name in victim.moving if len(seen[name]) > 1]:
        raise InputError(
            f"{twice[0]} is called {len(seen[twice[0]])} times, and its running statistics mix those of all, which "
            "cannot be told apart; choose another --bn."
        )
    return recover_statistics(victim, running_after(victim, images), tuple(images.shape))


def running_after(victim: Victim, images: Tensor) -> Statistics:
    """The client's running statistics after one forward of its batch in train mode: (1 - m) old + m batch."""
    batch = batch_statistics(victim, victim.normalize(images), correction=1)  # as torch keeps them
    return {name: old.lerp(batch[name].detach(), MOMENTUM) for name, old in victim.moving.items() if name in batch}


def recover_statistics(victim: Victim, after: Statistics, shape: tuple[int, ...]) -> Statistics:
    """The batch's statistics from the running ones before and after: (after - (1 - m) before) / m.

    Args:
        shape: (B, C, H, W) of the batch, to undo torch's correction n / (n - 1) of the variance.
    """
    sizes = {n: x.numel() // x.shape[1] for n, x in victim.batch_norm_inputs(victim.mean.new_zeros(shape)).items()}
    found = {}
    for name, moved in after.items():
        mean, variance = (moved - (1 - MOMENTUM) * victim.moving[name]) / MOMENTUM
        found[name] = torch.stack([mean, variance * (sizes[name] - 1) / sizes[name]])
    return found
