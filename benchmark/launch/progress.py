"""What is shown and logged while an attack runs."""

from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from attacks.base import INNER, Attack
from attacks.engine.session import least
from benchmark.launch.strategy import Heartbeat

EVERY = 2  # training steps between two readings of the cost: each waits for the device


class TaskProgress(ProgressBar):
    """One bar over all steps of the tasks of all processes, shown by the first; stage, step and cost are its own."""

    def begin(self, trainer: Trainer, heartbeat: Heartbeat, *, groups: int, steps: int) -> None:
        """
        Args:
            heartbeat: tells the other processes what this one has done, and the reverse.
            groups: of tasks that all processes have left, as `GradientDataModule` takes them.
            steps: of each.
        """
        self.heartbeat, self.groups, self.steps, self.said = heartbeat, groups, steps, ""
        self.bar = tqdm(
            total=groups * steps, unit="step", disable=trainer.global_rank > 0, dynamic_ncols=True, mininterval=0.5
        )
        if trainer.world_size > 1:
            self.bar.set_description_str(f"{trainer.world_size} processes")

    def disable(self) -> None:
        """Lightning disables the bars of other processes than the first, which `begin` does already."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Attack, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = min((batch_idx + 1) * INNER, self.steps)  # steps done
        self.heartbeat.steps += step - batch_idx * INNER
        if batch_idx % EVERY == 0:
            stage, costs = pl_module.session.costs[-1]
            least_costs = least(costs).tolist()  # the only reading
            self.said = f"stage {stage}, step {step}, cost {min(least_costs):.4g}"
            for observation, cost in zip(batch, least_costs, strict=True):
                reading: dict[str, Any] = {"task": observation.task, "cost": cost}  # a column per task is quadratic
                for logger in trainer.loggers:
                    logger.log_metrics(reading, step=step - 1)
        self.show()

    def show(self) -> None:
        """Draw what is known to be done by now."""
        done = [self.heartbeat.steps, *self.heartbeat.steps_of_others.values()]
        tasks = sum(steps // self.steps for steps in done)
        self.bar.set_postfix_str(f"{tasks}/{self.groups} tasks, {self.said}", refresh=False)
        self.bar.update(sum(done) - self.bar.n)

    def complete(self) -> None:
        """All processes have done their tasks; the last that they said of it may be older."""
        self.bar.set_postfix_str(f"{self.groups}/{self.groups} tasks, {self.said}", refresh=False)
        self.bar.update(self.bar.total - self.bar.n)

    def close(self) -> None:
        self.bar.close()  # what is printed next begins on a line of its own
