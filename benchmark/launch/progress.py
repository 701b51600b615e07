"""What is shown and logged while an attack runs."""

from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from attacks.base import INNER, Attack
from attacks.engine.session import least
from benchmark.tasks.module import data_module

EVERY = 2  # training steps between two readings of the cost: each waits for the device


class TaskProgress(ProgressBar):
    """One bar over all steps of this process's tasks: task, stage, step, cost, time left."""

    shown = True

    def on_train_start(self, trainer: Trainer, pl_module: Attack) -> None:
        module = data_module(trainer)
        total = module.groups * module.steps
        self.bar = tqdm(total=total, unit="step", disable=not self.shown, dynamic_ncols=True, mininterval=0.5)
        if trainer.world_size > 1:
            self.bar.set_description_str(f"process 1 of {trainer.world_size}")

    def disable(self) -> None:
        self.shown = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: Attack, outputs: Any, batch: Any, batch_idx: int) -> None:
        module = data_module(trainer)
        step = min((batch_idx + 1) * INNER, module.steps)  # steps done
        self.bar.update(step - batch_idx * INNER)
        if batch_idx % EVERY == 0:
            stage, costs = pl_module.session.costs[-1]
            least_costs = least(costs).tolist()  # the only reading
            task = f"task {trainer.current_epoch + 1}/{module.groups}"
            self.bar.set_postfix_str(f"{task}, stage {stage}, step {step}, cost {min(least_costs):.4g}")
            for observation, cost in zip(batch, least_costs, strict=True):
                reading: dict[str, Any] = {"task": observation.task, "cost": cost}  # a column per task is quadratic
                for logger in trainer.loggers:
                    logger.log_metrics(reading, step=step - 1)

    def on_train_end(self, trainer: Trainer, pl_module: Attack) -> None:
        self.bar.close()

    def on_exception(self, trainer: Trainer, pl_module: Attack, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.close()  # what is printed next begins on a line of its own
