"""One run: an attack on a number of tasks, from its options to rows, pictures and table."""

import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException
from threadpoolctl import threadpool_limits
from torch import Tensor

from attacks.base import Attack
from benchmark.code_version import code_version
from benchmark.config import Config, dump
from benchmark.contents import contents, digests
from benchmark.device import best_device, device_name, places
from benchmark.launch.claim import claim, follow
from benchmark.launch.progress import TaskProgress
from benchmark.launch.strategy import STARTER, Heartbeat, ShareTasks, is_first, processes, wait_for_first
from benchmark.scoring.accuracy import victim_accuracy
from benchmark.scoring.gallery import read_split
from benchmark.scoring.judge import Judge, RowMaker, peak_memory, reports
from benchmark.scoring.metrics import try_own
from benchmark.scoring.networks import available, lpips_backbone, missing, networks
from benchmark.scoring.picture import draw, write_truths
from benchmark.tasks.batches import Batch, group_size, grouped, share_of
from benchmark.tasks.capture import Task, capturing
from benchmark.tasks.controls import mean_image
from benchmark.tasks.module import GradientDataModule
from benchmark.tracks.entry import track_of, warn_of_budget
from benchmark.tracks.track import read
from benchmark.wandb_log import log_run
from leaderboard.board import entries
from leaderboard.options import abouts
from leaderboard.rows import PROTOCOL, FlatRow, Row
from leaderboard.run_folder import Contents, RunFolder
from leaderboard.sweeps import TRAINING
from leaderboard.table import as_text
from leaderboard.wandb_board import need_key
from victims.data.base import ImageData
from victims.errors import InputError, Notice
from victims.observation import Observation
from victims.preprocessing import Preprocessing, text


def run(config: Config) -> RunFolder:
    """Attack, score, and print the table. A run that was stopped continues with its first task that is not done.

    Returns:
        the folder with rows, reconstructions, curves and pictures.

    Raises:
        InputError: an option cannot be used, or another start of the run is at work; nothing has been attacked yet.
        Unfinished: other processes ended before their tasks were done.
    """
    with ExitStack() as held:
        return _run(config, held)


def _run(config: Config, held: ExitStack) -> RunFolder:
    reproducible()
    first = is_first()
    # Until the Trainer sets it.
    rank_zero_only.rank = 0 if first else 1  # type: ignore[attr-defined]
    if config.wandb == "online":
        need_key()
    data = config.make_data()
    victim, client = config.make_victim(data), config.make_client()
    attack = config.make_attack()
    batches = config.make_batches(data, config.tasks)
    order = [batch.task for batch in batches]
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
    folder = prepare(base, found, dump(config, resolved), held) if first else follow(base, found)
    about = digests(found)
    split = partial(read_split, data, config.out, about["data_digest"])
    make_row = row_maker(config, attack, victim.preprocessing, lpips_backbone(given), about, accuracy)
    if first and accuracy is not None:
        print(f"victim   {config.steps_trained()} steps of training: {accuracy:.1%} of test images classified right")
    judge = Judge(folder, make_row, given, split)
    done, torn = folder.read_tasks()
    absent = missing(given) if first else {}
    no_lpips = absent.pop("lpips", "")  # the default, which a first run may lack: said at its end
    for warning in [*torn, *(f"no {metric}: {why}" for metric, why in absent.items())]:
        warnings.warn(warning, Notice, stacklevel=1)
    if config.control == "mean_image":
        left = [batch for batch in batches if batch.task not in done]
        if first and left:
            score_mean_image(map(capture, left), judge, mean_image(config.make_data("train")))
    elif not done.keys() >= set(order):
        mine = share_of(groups, trainer.global_rank, trainer.world_size, done)
        attack_groups(attack, mine, trainer, capture, judge, order, left=len(share_of(groups, 0, 1, done)))
    if first:
        rows = folder.merge_rows(order)
        warn_of_budget(config, rows)
        settings = {**(folder.read_config() or {}), **config.identity(), **resolved}
        show_results(folder, rows, data, wandb=config.wandb, settings=settings)
        if no_lpips:
            print(f"no lpips {no_lpips}")
    return folder


def attack_groups(
    attack: Attack,
    groups: Sequence[Sequence[Batch]],
    trainer: Trainer,
    capture: Callable[[Batch], Task],
    judge: Judge,
    order: Sequence[str],
    *,
    left: int,
) -> None:
    """Attack one group of tasks per epoch; the first process then waits until all tasks in `order` have rows.

    Args:
        groups: those of this process.
        left: the number of groups of all processes.

    Raises:
        Unfinished: other processes ended before their tasks were done.
    """

    def observe(epoch: int) -> list[Observation]:
        judge.tasks = [capture(batch) for batch in groups[epoch]]
        return [task.observation for task in judge.tasks]

    def without_rows() -> list[str]:
        return sorted(set(order) - folder.read_tasks()[0].keys())

    folder = judge.folder
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


def reproducible() -> None:
    """The same rows whatever the number of processes or cores: one thread each on a CPU, exact fp32 on a GPU."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    threadpool_limits(1, user_api="blas")  # numpy in CMA-ES: its threads mostly wait for each other
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


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


def row_maker(
    config: Config,
    attack: Attack,
    preprocessing: Preprocessing,
    lpips_backbone: str,
    of_contents: Mapping[str, str],
    victim_accuracy: float | None = None,
) -> RowMaker:
    """Makes rows: everything that is the same for the whole run is filled in.

    Args:
        preprocessing: the victim's.
        lpips_backbone: see `Row`.
        of_contents: digests of the run's contents, by their keys in a row.
        victim_accuracy: see `Row`.
    """
    defense, prior = config.make_defense(), None if config.control == "mean_image" else attack.prior
    settings = settings_of(config, attack, preprocessing, of_contents)
    on_track = cache(partial(track_of, config))
    make = partial(
        Row,
        protocol=PROTOCOL,
        axis={**(defense.axis if defense else {}), **({TRAINING: steps} if (steps := config.steps_trained()) else {})},
        victim_accuracy=victim_accuracy,
        lpips_backbone=lpips_backbone,
        device=device_name(),
        code=code_version(),
        torch_version=torch.__version__,
        training_seconds=prior.training_seconds if prior else None,
    )

    def row(*, gradient_evaluations: int, **scores: Any) -> Row:
        track = on_track(gradient_evaluations)
        if track:
            scores["track_version"] = read(track).version
        return make(settings={**settings, "track": track}, gradient_evaluations=gradient_evaluations, **scores)

    return row


def settings_of(
    config: Config, attack: Attack, preprocessing: Preprocessing, of_contents: Mapping[str, str]
) -> dict[str, Any]:
    """The settings of a run's rows, see `Row`; the arguments are those of `row_maker`."""
    idle = config.control == "mean_image"
    prior, refine = (None, None) if idle else (attack.prior, attack.refine)
    asked = {about.rows[0]: getattr(config, name) for name, about in abouts().items() if about.rows}
    used = {
        "prior": config.prior if prior else "none",
        "prior_trained_on": prior.trained_on if prior else "none",
        "refine": config.refine if refine else "none",
        "refine_trained_on": refine.trained_on if refine else "",
        "victim_weights": config.weights_label(),
        "mean": text(preprocessing.mean),
        "std": text(preprocessing.std),
        "labels": "inferred" if attack.label_method else attack.labels,
        "label_method": attack.label_method or "",
        "adapt": config.adapt and config.defense != "none",
        "restarts": 0 if idle else attack.restarts,
        "steps": 0 if idle else sum(attack.plan.values()),
        "options": {"plan": attack.plan, **config.changes(type(attack))},
    }
    return {**asked, **used, **of_contents}


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
