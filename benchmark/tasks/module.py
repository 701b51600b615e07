"""The DataModule: serves captured updates to the attack, one group of tasks per epoch."""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from attacks.base import INNER
from victims.observation import Observation


class GradientDataModule(LightningDataModule):
    """Serves one group of tasks per epoch: to the attack their observations, once per training step.

    No attribute of it leads to an image, a batch or a data set: they lie in the closure of `observe`. Code that
    searches closures, frames or the garbage collector still finds them, but not in a sealed run (`benchmark.sealed`).

    Args:
        observe: captures the group of an epoch.
        groups: how many there are.
        steps: how often an attack steps on each group.
    """

    def __init__(self, observe: Callable[[int], list[Observation]], *, groups: int, steps: int) -> None:
        super().__init__()
        self.observe, self.groups, self.steps = observe, groups, steps

    def train_dataloader(self) -> DataLoader[list[Observation]]:
        assert self.trainer is not None
        often = -(-self.steps // INNER)
        again: Any = [self.observe(self.trainer.current_epoch)] * often  # a list serves as a data set
        return DataLoader(again, batch_size=None, collate_fn=lambda group: group)

    def transfer_batch_to_device(
        self, batch: list[Observation], device: torch.device, dataloader_idx: int
    ) -> list[Observation]:
        return batch  # captured on the device
