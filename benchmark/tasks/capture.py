"""What a client sends, and what the attacker gets: the only way from images to an Observation."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import get_args

import torch
from torch import Tensor

from benchmark.tasks.batches import Batch
from benchmark.tasks.controls import strangers
from defenses.base import Defense, applied, check_estimate, check_update, parts
from leaderboard.options import Control
from victims.amp import amp_gradient
from victims.choices import Amp, Level
from victims.client import GradientFn, LocalTraining, fed_avg, fed_sgd, known_statistics
from victims.data.base import ImageData
from victims.errors import InputError, Notice
from victims.losses.base import check_loss
from victims.observation import Estimate, Knowledge, Observation, Transform
from victims.rounds import each_round
from victims.seeds import private_seed
from victims.vanishing_gradients import vanishing
from victims.victim import Gradient, Statistics, Victim, gradient_at, norm


@dataclass(frozen=True)
class Task:
    """An observation with its private batch: images (B, C, H, W) in [0, 1], labels (B,). For the judge alone.

    Attributes:
        victim: the client's own copy, which may keep what it is given; no observation leads to it.
    """

    observation: Observation
    victim: Victim
    images: Tensor
    labels: Tensor
    sample_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Client:
    """How a client computes its update, and what the attacker is declared to know besides it.

    Attributes:
        defense: what the client does against leakage.
        local: how it trains before it shares (FedAvg); None is FedSGD.
        adapt: whether the attacker knows which defense is used.
        surrogate: which of the defense's surrogates an adaptive attacker uses; empty for its own.
        give_labels: whether the attacker knows the batch's labels.
        bn: which batch-norm statistics of the batch the attacker knows.
        know_lr: whether the attacker knows the learning rate of local training.
        amp: mixed precision of the client; the attacker computes in full precision.
        seed: of the client's randomness, together with its images and the name of the task.
    """

    defense: Defense | None = None
    local: LocalTraining | None = None
    adapt: bool = True
    surrogate: str = ""
    give_labels: bool = True
    bn: Level = "none"
    know_lr: bool = True
    amp: Amp = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, values in (("bn", self.bn, get_args(Level)), ("amp", self.amp, get_args(Amp))):
            if value not in values:
                raise InputError(f"{name} is '{value}'; give one of {', '.join(values)}.")
        for part in parts(self.defense):
            check_estimate(part)
        offered = {name for part in parts(self.defense) for name in part.surrogates}
        if self.defense and self.adapt and self.surrogate not in {"", *offered}:
            fix = f"give one of {', '.join(sorted(offered))}, or leave it out" if offered else "leave it out"
            raise InputError(f"no part of the defense offers a surrogate '{self.surrogate}'; {fix}.")


def client_update(
    victim: Victim,
    images: Tensor,
    labels: Tensor,
    *,
    generator: torch.Generator,
    defense: Defense | None = None,
    local: LocalTraining | None = None,
    amp: Amp = "none",
) -> Gradient:
    """What a client sends: a gradient (FedSGD) or a weight difference (FedAvg), after its defense.

    Of several clients it is the mean of what they send: each defends its own.

    Args:
        images: (B, C, H, W) in [0, 1], any device and float type.
        labels: (B,) classes, or (B, K) probabilities.
        generator: of the defense's randomness, on the CPU.

    Raises:
        InputError: the clients of `local` cannot have equal shares of the batch.
    """
    if defense and local and local.clients > 1:
        local.schedule(len(images))  # refuses unequal shares
        alone = partial(client_update, victim, defense=defense, local=replace(local, clients=1), amp=amp)
        seeds = torch.randint(2**62, (local.clients,), generator=generator).tolist()
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        shares = zip(images.chunk(local.clients), labels.chunk(local.clients), draws, strict=True)
        sent = [alone(x, y, generator=own) for x, y, own in shares]
        return {name: torch.stack([update[name] for update in sent]).mean(0) for name in victim.parameters}
    images, labels = on_device(victim, images, labels)
    gradient_fn: GradientFn = partial(gradient_at, victim) if amp == "none" else amp_gradient(victim, amp)
    if defense:
        gradient_fn = defense.gradient_fn(gradient_fn, victim, generator)
    if local:
        update = fed_avg(victim, images, labels, local, gradient_fn)
    else:
        update = fed_sgd(victim, images, labels, gradient_fn)
    if not defense:
        return update
    check_update(update, victim.parameters, *(type(part).gradient_fn for part in parts(defense)))
    return each_round(victim, update, lambda part: applied(defense, part, generator))


def capture(
    victim: Victim,
    images: Tensor,
    labels: Tensor,
    client: Client,
    *,
    task: str,
    num_classes: int,
    own: Victim | None = None,
) -> Observation:
    """What the server sees of one client's round. It is computed on the victim's device.

    A Notice says where the update carries next to nothing of an image, or nothing that can be matched.

    Args:
        images: (B, C, H, W) in [0, 1].
        labels: (B,) classes, or (B, K) probabilities.
        task: the stable id of the batch.
        own: the client's copy of the victim, on which it computes: a model may keep the images that it is given, and
            the observation leads to the victim. None makes one.

    Raises:
        InputError: the victim has no statistics of level `client.bn`, its loss does not work on the batch, or the
            clients cannot have equal shares.
    """
    if client.bn in ("exact", "recovered") and any(part.changes_images for part in parts(client.defense)):
        raise InputError(
            f"the defense changes the images, and --bn {client.bn} would tell the statistics of those before; choose "
            "--bn running or none."
        )
    own = own or deepcopy(victim)
    generator = torch.Generator().manual_seed(private_seed(images, labels, client.seed, task))
    images, labels = on_device(victim, images, labels)
    check_victims_loss(own, images, labels)
    update = client_update(
        own, images, labels, generator=generator, defense=client.defense, local=client.local, amp=client.amp
    )
    if warning := vanishing(own, images, labels):
        warnings.warn(f"{task}: {warning}", Notice, stacklevel=2)
    if not 0 < norm(update) < torch.inf:
        warnings.warn(
            f"{task}: the update's norm is {norm(update)}; nothing can be matched to it.", Notice, stacklevel=2
        )
    knowledge = declared(
        client,
        len(images),
        in_order(labels) if client.give_labels else None,  # a multiset, without the batch's order
        known_statistics(own, images, client.bn, client.local),
    )
    count, channels, height, width = images.shape
    return Observation(task, victim, update, count, (channels, height, width), num_classes, knowledge)


def declared(client: Client, batch_size: int, labels: Tensor | None, statistics: Statistics | None) -> Knowledge:
    """What the attacker is declared to know: what follows from the options, and these of the batch."""
    local = client.local
    if local and not client.know_lr:
        local = replace(local, lr=None)
    estimate = client.defense.surrogate(client.surrogate) if client.defense and client.adapt else None
    if estimate and local and local.lr:
        estimate = beyond_decay(estimate, local, batch_size)
    decay = client.local.optimizer.decay if client.local and any(map(of_updates, parts(client.defense))) else 0
    if local and local.lr is None and local.optimizer.decay:  # what is not known to be added cannot be taken out
        decay, estimate = local.optimizer.decay, estimate or unchanged
    return Knowledge(
        labels=labels,
        estimate=with_decay(estimate, decay) if estimate and decay else estimate,
        statistics=statistics,
        local=local,
        decayed=estimate is not None and decay > 0,
    )


def of_updates(part: Defense) -> bool:
    """Whether a defense changes the update after local training."""
    return type(part).__call__ is not Defense.__call__


def beyond_decay(estimate: Estimate, local: LocalTraining, batch_size: int) -> Estimate:
    """A surrogate that takes what weight decay alone can explain for zero, which Soteria's looks for."""

    def estimated(received: Gradient, victim: Victim) -> Transform:
        least = local.least_gradient(victim.parameters, batch_size)
        return estimate({n: g.where(g.abs() > least[n], 0) if least else g for n, g in received.items()}, victim)

    return estimated


def unchanged(received: Gradient, victim: Victim) -> Transform:
    """The surrogate of no defense."""
    return lambda gradient: gradient


def with_decay(estimate: Estimate, decay: float) -> Estimate:
    """A surrogate that takes a gradient to what the client would have sent after local training with weight decay."""

    def decayed(received: Gradient, victim: Victim) -> Transform:
        # Parameters that are not in the loss are left where they are.
        added = {name: decay * p for name, p in victim.parameters.items() if received[name].any()}
        transform = estimate(received, victim)
        return lambda gradient: transform({n: g + added[n] if n in added else g for n, g in gradient.items()})

    return decayed


def check_victims_loss(victim: Victim, images: Tensor, labels: Tensor) -> None:
    """As `check_loss`, on the victim's logits of images (B, C, H, W) in [0, 1]."""
    images, labels = on_device(victim, images, labels)
    check_loss(victim.criterion, victim.logits(victim.parameters, victim.normalize(images)), labels)


def on_device(victim: Victim, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Images and labels where the victim is, and in its float type."""
    return images.to(victim.mean), labels.to(victim.mean if labels.is_floating_point() else victim.mean.device)


def in_order(labels: Tensor) -> Tensor:
    """Classes (B,) or probabilities (B, K), sorted."""
    values, counts = labels.unique(sorted=True, return_counts=True, dim=0)
    return values.repeat_interleave(counts, 0)


def capturing(victim: Victim, data: ImageData, client: Client, control: Control = "none") -> Callable[[Batch], Task]:
    """A function that is `capture_task` for batches of one data set, with one copy of the victim for all clients.

    It keeps the last task, so the first one can be looked at before it is attacked.
    """
    own = deepcopy(victim)

    @lru_cache(1)
    def captured(batch: Batch) -> Task:
        return capture_task(victim, data, batch, client, control, own)

    return captured


def capture_task(
    victim: Victim,
    data: ImageData,
    batch: Batch,
    client: Client,
    control: Control = "none",
    own: Victim | None = None,
) -> Task:
    """One client's round on a batch of a data set, with the private batch kept apart.

    Args:
        control: under `shuffled_update` the update, and the labels that are given, are those of other images.
        own: as `capture` takes it.

    Raises:
        InputError: as `capture` does, or there are too few other images.
    """
    images, labels = data.batch(batch.indices)
    sent = data.batch(strangers(data, batch)) if control == "shuffled_update" else (images, labels)
    own = own or deepcopy(victim)
    observation = capture(victim, *sent, client, task=batch.task, num_classes=len(data.classes), own=own)
    return Task(observation, own, images, labels, tuple(data.ids[i] for i in batch.indices))
