"""The overhead of Lightning on a step."""

import contextlib
import io
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import CSVLogger

from attacks.base import INNER, Attack
from benchmark.launch.progress import EVERY, TaskProgress
from benchmark.launch.strategy import Heartbeat
from benchmark.row_maker import row_maker
from benchmark.run import make_trainer
from benchmark.scoring.gallery import read_split
from benchmark.scoring.judge import Judge, reports
from leaderboard.options import row_keys
from leaderboard.run_folder import RunFolder
from tests.speed.cells import Cell, Times
from victims.observation import Observation

BLOCKS = 12
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


def overhead(cell: Cell) -> float:
    """Seconds that Lightning adds to a step: the median over blocks of steps with it and without it.

    The Trainer is that of a run, with its progress bar and the judge. What it adds does not depend on the victim, so
    one cheap cell says it for all.
    """
    attack = cell.attack()
    beside = Beside(cell.attack())
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        nothing = {key: "" for key in row_keys() if key.endswith("_digest")}  # nobody reads these rows
        rows = row_maker(cell.config, attack, cell.task.observation.victim.preprocessing, "none", nothing)
        judge = Judge(RunFolder(Path(folder)), rows, {}, partial(read_split, cell.data, Path(folder), ""))
        judge.tasks = [cell.task]
        trainer = make_trainer(cell.config, 1)
        trainer.callbacks = [reports(judge), *trainer.callbacks, beside]
        trainer.logger = CSVLogger(folder, name="log")
        module = cell.module((BLOCKS + 1) * BLOCK)
        (progress,) = (callback for callback in trainer.callbacks if isinstance(callback, TaskProgress))
        progress.begin(trainer, Heartbeat(Path(folder), 0, 1), groups=1, steps=module.steps)
        trainer.fit(attack, module)
    pairs = zip(beside.under.leading, beside.bare.leading, strict=True)
    return median(under - bare for under, bare in pairs) / BLOCK
