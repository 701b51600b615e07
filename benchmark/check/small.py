"""Small tasks, priors and denoisers that contracts are tried on: a LeNet and embedded photographs, random weights."""

from typing import Any

import torch
from torch import Tensor, nn

from benchmark.registry import find, open_defense
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import Client, Task, capture_task
from defenses.base import Defense
from defenses.sparsification import Sparsification
from priors.base import Denoiser, Generator, Prior
from priors.dcgan import DCGAN
from priors.ffdnet import FFDNet
from priors.inverters import Inverter
from victims.choices import Level
from victims.data.photos import Photos
from victims.models.lenet import LeNet
from victims.modules import build
from victims.observation import Observation
from victims.victim import Gradient, Victim

BATCH = (3, 50, 90)
OTHER = (8, 30, 77)


def small_generator() -> DCGAN:
    """Random weights; small enough for hundreds of steps in a test."""
    return build(DCGAN, seed=0, nz=8, ngf=4).eval().requires_grad_(False)


def small_denoiser() -> FFDNet:
    """Random weights."""
    return build(FFDNet, seed=0, depth=3, width=4).eval().requires_grad_(False)


def any_update(network: type[Inverter]) -> Inverter:
    """An inverter of a kind that takes every update, for contracts of attacks."""

    class Untrained(network):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            nn.Module.__init__(self)

        def check(self, observation: Observation) -> None:
            self.shape = (observation.batch_size, *observation.image_shape)

        def forward(self, update: Gradient, labels: Tensor) -> Tensor:
            u = torch.cat([g.flatten(1) for g in update.values()], 1)[:, : torch.Size(self.shape).numel()]
            return (u / u.abs().mean(1, keepdim=True)).sigmoid().unflatten(1, self.shape)

    return Untrained()


def small_prior(kind: type[Prior]) -> Prior:
    """One that an attack takes which takes this kind."""
    if issubclass(kind, Inverter):
        return any_update(kind)
    return small_denoiser() if kind is Denoiser else small_generator() if kind is Generator else kind()


def small_task(
    indices: tuple[int, ...] = BATCH,
    *,
    task: str = "t",
    size: int = 32,
    rate: float | None = 0.5,
    dtype: torch.dtype = torch.float32,
    give_labels: bool = True,
    victim: Victim | None = None,
    model: type[nn.Module] = LeNet,
    training: bool = False,
    bn: Level = "none",
) -> Task:
    """A task of photos on a LeNet; the same arguments give the same task.

    Args:
        rate: of the sparsification of the update; None is no defense.
    """
    data = Photos(split="tune", size=size)
    if victim is None:
        net = build(model, image_shape=(3, size, size), num_classes=10, seed=0).to(dtype)
        victim = Victim(net, mean=data.mean, std=data.std, training=training)
    client = Client(defense=None if rate is None else Sparsification(rate), give_labels=give_labels, bn=bn)
    return capture_task(victim, data, Batch(task, indices), client)


def defended_task(
    defense: str | Defense, indices: tuple[int, ...] = BATCH, surrogate: str = "", victim: str = "lenet"
) -> Task:
    """A task of an attacker who adapts to a defense."""
    data, opened = Photos(split="tune"), open_defense(defense) if isinstance(defense, str) else defense
    make = find("victim", victim)

    def defended(image_shape: tuple[int, int, int], **options: Any) -> nn.Module:
        model = make(image_shape=image_shape, **options)
        return opened.model(model, image_shape) if opened else model

    net = build(defended, image_shape=data.image_shape, num_classes=10, seed=0)
    client = Client(defense=opened, surrogate=surrogate)
    return capture_task(Victim(net, mean=data.mean, std=data.std), data, Batch("t", indices), client)
