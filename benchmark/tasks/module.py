"""The DataModule: serves captured updates to the attack, one group of tasks per epoch."""

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from attacks.base import INNER
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import Client, Task, capture_task
from leaderboard.options import Control
from victims.data.base import ImageData
from victims.errors import InputError
from victims.observation import Observation
from victims.victim import Victim


class GradientDataModule(LightningDataModule):
    """Serves one group of tasks per epoch: to the attack their observations, once per training step.

    The private batches stay here, in `tasks`, for the judge.

    Args:
        batches: all of the run, in order.
        steps: how often an attack steps on each group.
        group: how many tasks are attacked together.

    Raises:
        InputError: a group below 1.
    """

    def __init__(
        self,
        data: ImageData,
        victim: Victim,
        batches: Sequence[Batch],
        client: Client,
        *,
        steps: int,
        control: Control = "none",
        group: int = 1,
    ) -> None:
        super().__init__()
        if group < 1:
            raise InputError(f"group is {group}; give 1 or more.")
        self.data, self.victim, self.client, self.control, self.steps = data, victim, client, control, steps
        self.groups = [batches[start : start + group] for start in range(0, len(batches), group)]
        self.tasks: list[Task] = []
        self._first: Task | None = None

    def first(self) -> Task:
        """The run's first task. It is kept, so that the epoch that attacks it need not capture it again."""
        self._first = self.capture(self.groups[0][0])
        return self._first

    def take(self, rank: int, world_size: int, done: frozenset[str]) -> None:
        """Keep this process's groups that are not done yet.

        The groups of each process do not depend on what is done: processes that start at different times find
        different tasks done, and must still agree on who does what.
        """
        mine = self.groups[rank::world_size]
        self.groups = [group for group in mine if not {batch.task for batch in group} <= done]

    def train_dataloader(self) -> DataLoader[list[Observation]]:
        assert self.trainer is not None
        self.victim.to(self.trainer.strategy.root_device)
        self.tasks = [self.capture(batch) for batch in self.groups[self.trainer.current_epoch]]
        observations = [task.observation for task in self.tasks]
        often = -(-self.steps // INNER)
        again: Any = [observations] * often  # a list serves as a data set
        return DataLoader(again, batch_size=None, collate_fn=lambda group: group)

    def transfer_batch_to_device(
        self, batch: list[Observation], device: torch.device, dataloader_idx: int
    ) -> list[Observation]:
        return batch  # captured on the device

    def capture(self, batch: Batch) -> Task:
        """What the server sees of one client's round, with the private batch kept apart."""
        kept, self._first = self._first, None  # used by the first epoch or not at all
        if kept is not None and kept.observation.task == batch.task:
            return kept
        return capture_task(self.victim, self.data, batch, self.client, self.control)


def data_module(trainer: Trainer) -> GradientDataModule:
    """The data module of a run. Lightning sets this attribute, but its types lack it."""
    return trainer.datamodule  # type: ignore[attr-defined]


def mean_image(data: ImageData) -> Tensor:
    """(C, H, W): the pixel-wise mean of up to 1024 evenly spaced images."""
    images, _ = data.batch(data.readable(range(0, len(data), max(1, len(data) // 1024))))
    return images.mean(0)
