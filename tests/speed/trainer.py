"""The overhead of Lightning on a step."""

import contextlib
import io
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import CSVLogger

from attacks.base import INNER, Attack
from benchmark.launch.progress import EVERY
from benchmark.run import make_trainer, row_maker
from benchmark.scoring.gallery import read_split
from benchmark.scoring.judge import Judge, reports
from leaderboard.options import row_keys
from leaderboard.run_folder import RunFolder
from tests.speed.cells import Cell, Times
from victims.observation import Observation

MOST = 12  # blocks
BLOCK = EVERY * INNER  # steps from one logging of the cost to the next


class Beside(Callback):
    """Blocks of steps under the Trainer, alternating with equal blocks of a twin of the attack without it."""

    def __init__(self, twin: Attack) -> None:
        self.twin, self.under, self.bare = twin, Times(), Times()

    def on_train_batch_start(self, trainer: Trainer, module: Attack, batch: list[Observation], index: int) -> None:
        if index == 0:
            self.twin.begin(batch)

    def on_train_batch_end(
        self, trainer: Trainer, module: Attack, outputs: Any, batch: list[Observation], index: int
    ) -> None:
        if (index + 1) % EVERY:
            return
        if index >= EVERY:
            self.under.stop()
            self.bare.take(self.block)
        else:
            self.block()
        self.under.start()

    def block(self) -> None:
        for _ in range(BLOCK):
            self.twin.advance()


def overhead(cell: Cell, step: float, seconds: float) -> dict[str, dict[str, list[float]]] | None:
    """Every block's seconds with Lightning and without, or None if no block fits into `seconds`.

    The Trainer is that of a run, with its progress bar and the judge.

    Args:
        step: seconds that one takes.
    """
    attack, twin = cell.attack(), cell.attack()
    blocks = min(MOST, int(seconds / (2 * BLOCK * step)), next(iter(attack.plan.values())) // BLOCK - 1)
    if blocks < 1:
        return None
    module = cell.module((blocks + 1) * BLOCK)
    beside = Beside(twin)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        nothing = {key: "" for key in row_keys() if key.endswith("_digest")}  # nobody reads these rows
        rows = row_maker(cell.config, attack, cell.task.observation.victim.preprocessing, "none", nothing)
        judge = Judge(RunFolder(Path(folder)), rows, {}, partial(read_split, cell.data, Path(folder), ""))
        judge.tasks = [cell.task]
        trainer = make_trainer(cell.config, 1)
        trainer.callbacks = [reports(judge), *trainer.callbacks, beside]
        trainer.logger = CSVLogger(folder, name="log")
        trainer.fit(attack, module)
    return {"under": asdict(beside.under), "bare": asdict(beside.bare)}
