"""`python -m benchmark audit`: what leaks from your own model on your own images."""

import contextlib
import io
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.audit.assumed import assumed
from benchmark.audit.check import attacked, check
from benchmark.audit.page import Shown, page
from benchmark.audit.tables import arrange
from benchmark.config import Config
from benchmark.device import best_device
from benchmark.run import reproducible, run
from benchmark.run_options import with_options
from benchmark.scoring.metrics import score
from benchmark.scoring.picture import png
from benchmark.tasks.capture import capture_task
from leaderboard.options import Options
from leaderboard.run_folder import write_atomically
from victims.by_name import LIBRARIES
from victims.data.base import ImageData
from victims.errors import InputError, Notice
from victims.names import is_own

ATTACKS: Mapping[str, dict[str, Any]] = {
    "ig, little smoothing": {"attack": "ig", "set": ["tv=1e-4"]},
    "ig, much smoothing": {"attack": "ig", "set": ["tv=1e-2"]},
    "gias": {"attack": "gias"},
    "rgap": {"attack": "rgap", "precision": "float64"},
}
"""Different kinds of attacks: searches over pixels, over a generator, and a closed form."""

DECIDED = ("data", "split", "victim", "batches", "rounds", "between", "adapt", "surrogate", "epochs_trained")
"""Options of a run that an audit does not leave open."""

LEAST, MOST = 100, 4800  # steps of a search: fewer say little, and IG's authors take no more
TRIED = 3  # steps that are timed
FOR_STEPS = 0.75  # share of the time that is spent on steps; the rest is for scoring and starting
MARGIN = 2  # times the minutes that were found to be enough: another start is slower


@dataclass(frozen=True)
class Cell:
    """An attack on all tasks under one defense, or its control on the update of other images."""

    name: str
    config: Config
    seconds: float
    """Time of one step on one task; for a closed form of all of it."""
    analytic: bool


@with_options("setting", "knowledge", also=("weights_dir", "chunk", "compile"), but=DECIDED)
def audit(
    *,
    model: str,
    images: Path,
    labels: Path | None = None,
    classes: str | None = None,
    defense: str = "none",
    minutes: float = 30,
    victim_weights: str = Options.victim_weights,
    batch: int = 1,
    most: int = 8,
    seed: int = Options.seed,
    out: Path = Path("audit"),
    **options: Any,
) -> None:
    """What leaks of your own images through the updates of your own model, as one page.

    Several attacks share a time budget, each adapts to every defense, and each is compared with reconstructions that
    were made without the update. The page shows a lower bound: a model is not safe because these attacks find nothing.

    Args:
        model: `module:NAME` or `module.NAME` of a torch module or of a function that builds one, which is called with
            image_shape= and num_classes=; or the name of a victim.
        images: a folder with one folder of pictures for each class; or a folder of pictures, with --labels.
        labels: table (CSV) with the columns file and label, for pictures that are not in class folders. Labels are
            names of classes, or their numbers from 0.
        classes: the model's classes, where the images are of some of them or in another order: a file with one name
            per line in the model's order, or their number.
        defense: what the client does: none, noise:0.01, ...; several with commas between them.
        minutes: time for all attacks on all images under all defenses.
        victim_weights: `random`, or a file of trained weights.
        batch: images per update.
        most: images that are attacked; fewer if the time is too short.
        seed: of weights and starts.
        out: folder of results; the page is its audit.html.
        options: of a run, see `Options`; those of client and attacker are listed on the page.

    Raises:
        InputError: there are no such images, too few of them, or too little time.
    """
    if not 0 < minutes < math.inf:
        raise InputError(f"minutes is {minutes}; give a finite number above 0.")
    reproducible()
    warnings.simplefilter("once", Notice)  # not by every attack
    warnings.filterwarnings("ignore", ".*there is no list of its tasks", Notice)  # and none is expected here
    began = time.monotonic()
    arrange(images, labels, out / "images" / "test", classes)
    module, colon, name = model.partition(":")
    config = Config(
        preset="default",
        data=f"folder:{out / 'images'}",
        victim=f"{module}.{name}" if colon and module not in LIBRARIES else model,
        victim_weights=victim_weights,
        batch=batch,
        seed=seed,
        devices=1,
        wandb="off",
        out=out / "runs",
        **options,
    )
    data = config.make_data()
    if len(data) < 2 * batch:
        raise InputError(f"{images} has {len(data)} images; the controls need {2 * batch}, twice a batch.")
    client = replace(config, defense="none", victim_mode="eval").make_victim(data)
    trained = is_own(config.victim) or config.weights_file() is not None
    right, warning = check(client, data, trained)
    if warning:
        warnings.warn(warning, Notice, stacklevel=1)
    defenses = defense.split(",")
    cells, left_out = timed(config, defenses, data)
    seconds = for_steps(minutes, time.monotonic() - began, cells)
    tasks, steps = share(seconds, cells, max(1, min(most, len(data)) // batch))
    shown = attack_all(cells, tasks, steps)
    ids = sorted({image for _, image in shown})
    rows = [result.row for results in shown.values() for result in results]
    priors = {(row["prior"], row["prior_trained_on"]) for row in rows if row["prior"] != "none"}
    text = page(
        shown,
        controls(data, ids),
        truths={image: png(data[data.ids.index(image)][0]) for image in ids},
        classes=data.classes,
        left_out=left_out,
        warning=warning,
        facts={
            "model": f"{model}, weights {config.weights_label()}, {len(data.classes)} classes",
            "classified right": f"{right} images of the folder; {attacked(client, data, ids)} of those attacked",
            **assumed(config, client.preprocessing),
            "shared": f"{rows[0]['shared_parameters']} of {rows[0]['total_parameters']} parameters",
            "attacked": f"{len(ids)} of {len(data)} images",
            "effort": f"{steps} steps each, the best of {shown[defenses[0], ids[0]][0].row['restarts']} starts by the "
            "attacker's own cost",
            "budget": f"{minutes:g} minutes",
            "generator": "; ".join(sorted(f"{name}, trained on {what}" for name, what in priors)) or "none",
        },
    )
    write_atomically(out / "audit.html", text)
    print(f"page     {out / 'audit.html'}")


def timed(config: Config, defenses: Sequence[str], data: ImageData) -> tuple[list[Cell], dict[str, str]]:
    """Every attack under every defense with its time, and its control; and why some are left out.

    Raises:
        InputError: a defense changes nothing, or no attack can be run.
    """
    cells: list[Cell] = []
    left_out: dict[str, str] = {}
    for defense in defenses:
        defended = replace(config, defense=defense)
        victim, (first,) = defended.make_victim(data), defended.make_batches(data, 1)
        defended.check_defense(victim, data, first)  # an error here is one for every attack
        for name, options in ATTACKS.items():
            asked = replace(defended, **options)
            try:
                measured = measure(asked, data)
            except InputError as error:
                left_out[f"{name}, {defense}"] = str(error)
                continue
            cells += [Cell(name, replace(asked, control=control), *measured) for control in ("none", "shuffled_update")]
    if not cells:
        raise InputError(f"no attack can be run on this model: {next(iter(left_out.values()))}")
    return cells, left_out


def attack_all(cells: Sequence[Cell], tasks: int, steps: int) -> dict[tuple[str, str], list[Shown]]:
    """Run every cell; its results by defense and image."""
    shown: dict[tuple[str, str], list[Shown]] = {}
    for cell in cells:
        chosen = replace(cell.config, tasks=tasks, steps=None if cell.analytic else steps)
        print(
            f"audit    {cell.name} on {tasks} x {chosen.batch} images, {chosen.defense}, {chosen.control}", flush=True
        )
        with contextlib.redirect_stdout(io.StringIO()):  # the page replaces its table
            folder = run(chosen)
        for row in folder.read_rows()[0][: tasks * chosen.batch]:
            picture = folder.reconstruction(row["task"], row["image"]).read_bytes()
            shown.setdefault((chosen.defense, row["image"]), []).append(Shown(cell.name, row, picture))
    return shown


def measure(config: Config, data: ImageData) -> tuple[float, bool]:
    """Seconds of one step on one task, after a first step that also prepares; whether it is a closed form.

    Raises:
        InputError: this attack cannot work on this model, batch or defense.
    """
    attack = config.make_attack()
    (batch,) = config.make_batches(data, 1)
    device = best_device()
    victim = config.make_victim(data).to(device)
    observation = attack.admit(capture_task(victim, data, batch, config.make_client()).observation)
    attack.to(device)
    began = time.perf_counter()
    attack.begin([observation])
    attack.advance()
    if attack.analytic:
        return time.perf_counter() - began, True
    began = time.perf_counter()
    for _ in range(TRIED):
        attack.advance()
    return (time.perf_counter() - began) / TRIED, False


def for_steps(minutes: float, spent: float, cells: Sequence[Cell]) -> float:
    """The seconds that all cells may take together.

    Args:
        minutes: for everything.
        spent: seconds that have passed.

    Raises:
        InputError: they are too few for the least number of steps on one task; says how many minutes are enough.
    """
    least = sum(cell.seconds * (1 if cell.analytic else LEAST) for cell in cells)
    seconds = (60 * minutes - spent) * FOR_STEPS
    if seconds < least:
        enough = math.ceil(MARGIN * (spent + least / FOR_STEPS) / 6) / 10
        raise InputError(
            f"{minutes:g} minutes are too few for {LEAST} steps of every attack on one batch; give more --minutes, "
            f"such as {enough:g}, fewer defenses, or a smaller --size."
        )
    return seconds


def share(seconds: float, cells: Sequence[Cell], most: int) -> tuple[int, int]:
    """(tasks, steps): as many tasks as the time allows, with the same number of steps for every search.

    Args:
        seconds: for all cells on all tasks, see `for_steps`.
        most: the most tasks.
    """
    solved = sum(cell.seconds for cell in cells if cell.analytic)
    step = sum(cell.seconds for cell in cells if not cell.analytic)
    tasks = max(1, min(most, int(seconds / (solved + LEAST * step))))
    return tasks, min(MOST, int((seconds / tasks - solved) / step)) if step else LEAST


def controls(data: ImageData, ids: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """For every image, the scores of the mean of all other images: a reconstruction without the update."""
    images, _ = data.batch(data.readable(range(len(data))))
    total, scores = images.sum(0), {}
    for image_id in ids:
        truth = data[data.ids.index(image_id)][0]
        mean = (total - truth) / (len(images) - 1)
        _, found = score(mean[None], truth[None])
        scores[image_id] = {name: values[0] for name, values in found.items()}
    return scores
