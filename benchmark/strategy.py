"""Processes that share tasks and nothing else."""

import os
import threading
import time
from typing import Any

from pytorch_lightning.strategies import DDPStrategy

STARTER = "GIBENCH_STARTER"  # process id, in the environment of the processes that it starts


class ShareTasks(DDPStrategy):
    """Lightning's launching and ranks, without a process group.

    Every rank attacks other tasks, so there is nothing to reduce: averaging gradients over ranks would be
    silently wrong, and a barrier would hang, for ranks take different numbers of tasks. DDPStrategy's
    collectives do nothing where no process group exists.
    """

    def _configure_launcher(self) -> None:
        super()._configure_launcher()
        if "LOCAL_RANK" not in os.environ:  # the process that starts the others
            os.environ[STARTER] = str(os.getpid())

    def setup_distributed(self) -> None:
        self.set_world_ranks()
        if self.local_rank > 0:
            # Not asked of the system here: a parent that is gone by now would never be missed.
            threading.Thread(target=end_with_parent, args=(int(os.environ[STARTER]),), daemon=True).start()

    def configure_ddp(self) -> None:
        pass

    def reduce(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        return tensor

    def teardown(self) -> None:
        """Take back what the launcher wrote into the environment: the next run here would take itself for a rank."""
        super().teardown()
        if self.launcher.procs or self.world_size == 1:
            for name in (STARTER, "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK"):
                os.environ.pop(name, None)

    def wait_for_others(self) -> None:
        """Rank 0: until the processes it launched have ended."""
        for process in self.launcher.procs:
            process.wait()


def end_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone: a killed run must not go on in the background."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
