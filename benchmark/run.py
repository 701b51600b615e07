"""One run: an attack on a number of tasks, from its options to rows, pictures and table."""

import os
import signal
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from attacks.base import Attack
from benchmark.code_version import code_version
from benchmark.config import Config, dump
from benchmark.contents import contents, digests
from benchmark.device import best_device, places, reproducible
from benchmark.launch.claim import claim, follow
from benchmark.launch.progress import TaskProgress
from benchmark.launch.strategy import STARTER, Heartbeat, ShareTasks, is_first, processes, wait_for_first
from benchmark.row_maker import row_maker
from benchmark.scoring.accuracy import victim_accuracy
from benchmark.scoring.gallery import read_split
from benchmark.scoring.judge import Judge, peak_memory, reports
from benchmark.scoring.networks import available, lpips_backbone, missing, networks
from benchmark.scoring.picture import draw, write_truths
from benchmark.scoring.score import try_own
from benchmark.tasks.batches import Batch, group_size, grouped, share_of
from benchmark.tasks.capture import Task, capturing
from benchmark.tasks.controls import mean_image
from benchmark.tasks.module import GradientDataModule
from benchmark.tracks.entry import warn_of_budget
from benchmark.wandb_log import log_run
from leaderboard.board import entries
from leaderboard.rows import FlatRow
from leaderboard.run_folder import Contents, RunFolder
from leaderboard.table import as_text
from leaderboard.wandb_board import need_key
from victims.data.base import ImageData
from victims.errors import InputError, Notice
from victims.observation import Observation


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A run before its first attack: whatever can be refused was accepted.

    Attributes:
        batches: those of all tasks, in order.
        groups: the same, as they are attacked.
        resolved: what follows from the options, by its name in config.yaml and in W&B.
    """

    config: Config
    data: ImageData
    attack: Attack
    batches: Sequence[Batch]
    groups: Sequence[Sequence[Batch]]
    trainer: Trainer
    capture: Callable[[Batch], Task]
    judge: Judge
    resolved: Mapping[str, Any]


def run(config: Config) -> RunFolder:
    """Attack, score, and print the table. A run that was stopped continues with its first task that is not done.

    Returns:
        the folder with rows, reconstructions, curves and pictures.

    Raises:
        InputError: an option cannot be used, or another start of the run is at work; nothing has been attacked yet.
        Unfinished: other processes ended before their tasks were done.
    """
    reproducible()
    first = is_first()
    # Until the Trainer sets it.
    rank_zero_only.rank = 0 if first else 1  # type: ignore[attr-defined]
    if config.wandb == "online":
        need_key()
    with ExitStack() as held:
        setup = set_up(config, held)
        judge, folder = setup.judge, setup.judge.folder
        done, torn = folder.read_tasks()
        absent = announce(setup, torn) if first else {}
        left = [batch for batch in setup.batches if batch.task not in done]
        if left and config.control != "mean_image":
            attack_tasks(setup, done)
        elif left and first:
            score_mean_image(map(setup.capture, left), judge, mean_image(config.make_data("train")))
        if first:
            rows = folder.merge_rows([batch.task for batch in setup.batches])
            warn_of_budget(config, rows)
            settings = {**(folder.read_config() or {}), **config.identity(), **setup.resolved}
            show_results(folder, rows, setup.data, wandb=config.wandb, settings=settings)
            if "lpips" in absent:  # the default, which a first run may lack: said at its end
                print(f"no lpips {absent['lpips']}")
        return folder


def set_up(config: Config, held: ExitStack) -> Setup:
    """Make what a run needs, and its folder, whose lock is held.

    Raises:
        InputError: an option cannot be used, or another start of the run is at work.
    """
    data = config.make_data()
    victim, client = config.make_victim(data), config.make_client()
    attack = config.make_attack()
    batches = config.make_batches(data, config.tasks)
    images, (parameters, _) = config.batch * attack.restarts, victim.parameter_counts()
    groups = grouped(batches, group_size(config.group, images, parameters, best_device()))
    given = networks(config.lpips, config.data, config.weights_dir)
    trainer = make_trainer(config, len(groups))
    victim.to(trainer.strategy.root_device)
    capture = capturing(victim, data, client, config.control)
    attack.tasks = len(batches)
    attack.prepare(capture(batches[0]).observation)  # refused before anything is written or another process is started
    config.check_defense(victim, data, batches[0])
    try_own((config.batch, *data.image_shape))
    found = contents(config, data, victim, attack, batches)
    base = config.folder(available(given))
    accuracy = victim_accuracy(config)
    resolved = {"plan": attack.plan, "restarts": attack.restarts, "code": code_version(), "victim_accuracy": accuracy}
    folder = prepare(base, found, dump(config, resolved), held) if is_first() else follow(base, found)
    about = digests(found)
    split = partial(read_split, data, config.out, about["data_digest"])
    make_row = row_maker(config, attack, victim.preprocessing, lpips_backbone(given), about, accuracy)
    return Setup(
        config=config,
        data=data,
        attack=attack,
        batches=batches,
        groups=groups,
        trainer=trainer,
        capture=capture,
        judge=Judge(folder, make_row, given, split),
        resolved=resolved,
    )


def announce(setup: Setup, torn: Sequence[str]) -> dict[str, str]:
    """Say what a user should know before the attacks begin.

    Args:
        torn: a line for each file of rows that was cut off.

    Returns:
        for every metric without its network: why.
    """
    accuracy, steps = setup.resolved["victim_accuracy"], setup.config.steps_trained()
    if accuracy is not None:
        print(f"victim   {steps} steps of training: {accuracy:.1%} of test images classified right")
    absent = missing(setup.judge.given)
    others = (f"no {metric}: {why}" for metric, why in absent.items() if metric != "lpips")
    for warning in [*torn, *others]:
        warnings.warn(warning, Notice, stacklevel=1)
    return absent


def attack_tasks(setup: Setup, done: Collection[str]) -> None:
    """Attack the groups of this process, one per epoch; the first one then waits until every task has rows.

    Args:
        done: the tasks that have rows.

    Raises:
        Unfinished: other processes ended before their tasks were done.
    """
    attack, trainer, judge, folder = setup.attack, setup.trainer, setup.judge, setup.judge.folder
    groups = share_of(setup.groups, trainer.global_rank, trainer.world_size, done)
    left = len(share_of(setup.groups, 0, 1, done))

    def observe(epoch: int) -> list[Observation]:
        judge.tasks = [setup.capture(batch) for batch in groups[epoch]]
        return [task.observation for task in judge.tasks]

    def without_rows() -> list[str]:
        return sorted({batch.task for batch in setup.batches} - folder.read_tasks()[0].keys())

    module = GradientDataModule(observe, groups=len(groups), steps=sum(attack.plan.values()))
    trainer.callbacks.insert(0, reports(judge))  # type: ignore[attr-defined]
    trainer.logger = CSVLogger(folder.path, name="log")
    trainer.fit_loop.max_epochs = len(groups)
    trainer.limit_train_batches = 1.0 if groups else 0  # a rank without work still starts the others
    progress = trainer.progress_bar_callback
    assert isinstance(progress, TaskProgress)
    with Heartbeat(folder.processes, trainer.global_rank, trainer.world_size) as heartbeat, closing(progress):
        progress.begin(trainer, heartbeat, groups=left, steps=module.steps)
        try:
            trainer.fit(attack, module)
        except SIGTERMException:  # Lightning's; by itself it ends with 0, as if all tasks were done
            raise SystemExit(128 + signal.SIGTERM) from None
        assert isinstance(trainer.strategy, ShareTasks)
        launched = trainer.strategy.wait_for_launched(progress.show)
        if is_first():
            heartbeat.wait_for(without_rows, launched, meanwhile=progress.show)
            progress.complete()
    if not is_first() and STARTER not in os.environ:
        wait_for_first(folder.processes, without_rows)


def show_results(
    folder: RunFolder, rows: list[FlatRow], data: ImageData, *, wandb: str, settings: Mapping[str, Any]
) -> None:
    """Print the table of a run's rows, write its pictures, and log both to W&B."""
    print(as_text(entries(rows)) + "\n", flush=True)
    write_truths(folder, rows, data)
    pictures = draw(folder, rows, data.classes)
    for name, path in {"rows": folder.rows_file, **pictures}.items():
        print(f"{name:8} {path}")
    if wandb != "off":
        log_run(folder, rows, pictures, config=settings, mode=wandb)


def prepare(base: Path, found: Contents, config: str, held: ExitStack) -> RunFolder:
    """Make the folder and hold its lock, and write the configuration.

    Raises:
        InputError: it cannot be written, or another start of the run is at work.
    """
    try:
        folder = claim(base, found, held)
        folder.write_config(config)
        return folder
    except OSError as error:
        raise InputError(f"cannot write results to {base} ({error.strerror}); choose another --out.") from None


def make_trainer(config: Config, groups: int) -> Trainer:
    """A Trainer whose processes share the groups of tasks.

    Raises:
        InputError: there are no such processes or devices.
    """
    gpus = torch.cuda.device_count()
    environment, devices, nodes = processes(config.devices, config.nodes, most=places(), groups=groups)
    if gpus and devices > gpus:
        raise InputError(f"devices is {devices}, but this process sees {gpus} GPUs; give at most that many.")
    return Trainer(
        accelerator="gpu" if gpus else "cpu",
        devices=devices,
        num_nodes=nodes,
        plugins=[environment],
        strategy=ShareTasks(),
        max_epochs=1,
        logger=False,
        callbacks=[TaskProgress()],
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,  # the DataModule distributes the tasks
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=config.out,
    )


def score_mean_image(tasks: Iterable[Task], judge: Judge, mean: Tensor) -> None:
    """The control without an attack: score the mean training image (C, H, W) in place of every reconstruction."""
    nothing = {"cost": 0.0, "gradient_evaluations": 0, "seconds": 0.0}
    for task in tasks:
        nothing["memory"] = peak_memory(task.victim.mean.device)
        judge.write(task, mean.expand_as(task.images), nothing)
