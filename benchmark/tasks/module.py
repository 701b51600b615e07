"""Tasks: captured updates with the private batches they came from, and the DataModule that serves them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from attacks.base import INNER
from benchmark.tasks.batches import Batch
from defenses.base import Defense
from leaderboard.rows import Control
from victims.client import Level, LocalTraining, fed_avg, fed_sgd, known_statistics
from victims.data.base import ImageData
from victims.errors import InputError, Notice
from victims.observation import Knowledge, Observation
from victims.seeds import seed_of
from victims.vanishing_gradients import vanishing
from victims.victim import Victim, gradient_at


@dataclass(frozen=True)
class Task:
    """An observation with its private batch: images (B, C, H, W) in [0, 1], labels (B,). For the judge alone."""

    observation: Observation
    images: Tensor
    labels: Tensor
    sample_ids: tuple[str, ...]


def strangers(data: ImageData, batch: Batch) -> tuple[int, ...]:
    """For every image of the batch another one of the same class, or of any class where there is none.

    An update of these tells the attacker nothing of the batch that it is not told by the labels.
    """
    generator = torch.Generator().manual_seed(seed_of("strangers", batch.task))
    chosen: list[int] = []
    for index in batch.indices:
        others = [i for i in range(len(data)) if i not in batch.indices and i not in chosen]
        others = [i for i in others if data.labels[i] == data.labels[index]] or others
        first = int(torch.randint(max(1, len(others)), (1,), generator=generator))
        stranger = next((i for i in others[first:] + others[:first] if data.readable([i])), None)
        if stranger is None:
            raise InputError("the shuffled-update control needs more images than a batch holds; lower --batch.")
        chosen.append(stranger)
    return tuple(chosen)


class GradientDataModule(LightningDataModule):
    """Serves one group of tasks per epoch: to the attack their observations, once per training step.

    The private batches stay here, in `tasks`, for the judge.

    Args:
        batches: all of the run, in order.
        give_labels: whether the attacker is told the batch's labels.
        bn: which batch-norm statistics of the batch it is told.
        group: how many tasks go together.
        steps: how often an attack steps on each group.
        local: how the clients train before they share; None is FedSGD.
        know_lr: whether the attacker is told their learning rate.
    """

    def __init__(
        self,
        data: ImageData,
        victim: Victim,
        batches: Sequence[Batch],
        *,
        defense: Defense | None,
        adapt: bool,
        give_labels: bool,
        bn: Level = "none",
        control: Control,
        seed: int,
        steps: int,
        group: int = 1,
        local: LocalTraining | None = None,
        know_lr: bool = True,
    ) -> None:
        super().__init__()
        self.data, self.victim, self.defense = data, victim, defense
        self.adapt, self.give_labels, self.bn, self.control = adapt, give_labels, bn, control
        self.seed, self.steps, self.local, self.know_lr = seed, steps, local, know_lr
        if group < 1:
            raise InputError(f"group is {group}; give 1 or more.")
        self.groups = [batches[start : start + group] for start in range(0, len(batches), group)]
        self.tasks: list[Task] = []

    def take(self, rank: int, world_size: int, done: frozenset[str]) -> None:
        """Keep this process's groups that are not done yet.

        Groups are dealt out before the finished ones are left out: processes that start at different times see
        different tasks finished, and must still agree on who does what.
        """
        mine = self.groups[rank::world_size]
        self.groups = [group for group in mine if not {batch.task for batch in group} <= done]

    def train_dataloader(self) -> DataLoader[list[Observation]]:
        self.victim.to(self.trainer.strategy.root_device)
        self.tasks = [self.capture(batch) for batch in self.groups[self.trainer.current_epoch]]
        observations = [task.observation for task in self.tasks]
        often = -(-self.steps // INNER)
        return DataLoader([observations] * often, batch_size=None, collate_fn=lambda group: group)

    def transfer_batch_to_device(
        self, batch: list[Observation], device: torch.device, dataloader_idx: int
    ) -> list[Observation]:
        return batch  # captured on the device

    def capture(self, batch: Batch) -> Task:
        """What the server sees of one client's round, with the private batch kept apart."""
        images, labels = self.data.batch(batch.indices)
        seen = self.data.batch(strangers(self.data, batch)) if self.control == "shuffled_update" else (images, labels)
        device = self.victim.mean.device
        private = seen[0].to(device, self.victim.mean.dtype)
        batch_labels, local = seen[1].to(device), self.local
        chance = torch.Generator().manual_seed(seed_of(self.seed, "defense", batch.task))
        gradient_fn = partial(gradient_at, self.victim)
        if self.defense:
            gradient_fn = self.defense.gradient_fn(gradient_fn, self.victim, chance)
        if local:
            update = fed_avg(self.victim, private, batch_labels, local, gradient_fn)
        else:
            update = fed_sgd(self.victim, private, batch_labels, gradient_fn)
        if said := vanishing(self.victim, private, batch_labels):
            warnings.warn(f"{batch.task}: {said}", Notice, stacklevel=2)
        if self.defense:
            update = self.defense(update, chance)
        norm = float(sum(g.double().square().sum() for g in update.values())) ** 0.5
        if not 0 < norm < torch.inf:
            warnings.warn(
                f"{batch.task}: the update's norm is {norm}; nothing can be matched to it.", Notice, stacklevel=2
            )
        knowledge = Knowledge(
            labels=seen[1].sort().values.to(device) if self.give_labels else None,  # a multiset, without order
            estimate=self.defense.surrogate() if self.defense and self.adapt else None,
            statistics=known_statistics(self.victim, private, self.bn, local),
            local=local if local is None or self.know_lr else replace(local, lr=None),
        )
        shape = tuple(images.shape[1:])
        observation = Observation(
            batch.task, self.victim, update, len(labels), shape, len(self.data.classes), knowledge
        )
        return Task(observation, images, labels, tuple(self.data.ids[i] for i in batch.indices))


def mean_image(data: ImageData) -> Tensor:
    """(C, H, W): the pixel-wise mean of up to 1024 evenly spaced images."""
    images, _ = data.batch(data.readable(range(0, len(data), max(1, len(data) // 1024))))
    return images.mean(0)
