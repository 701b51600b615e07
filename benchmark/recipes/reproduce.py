"""`python -m benchmark reproduce`: a published table, run again, beside its numbers."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from attacks.base import Attack
from benchmark.config import Config
from benchmark.launch.matrix import exit_code, rows_of, run_cells
from benchmark.recipes.recipe import Cell, expand, learned, loaded, read
from benchmark.registry import find
from leaderboard.board import Entry, entries, metrics
from leaderboard.files import write_atomically
from leaderboard.reported import Reported, reported
from leaderboard.table import NOTHING, Table, common, interval
from victims.errors import InputError

DATA_DIRS, WEIGHTS_DIRS = (Path("data"), Path("../shared/data")), (Path("weights"), Path("../shared/weights"))
AS_IN_ROWS = {"batch": "batch_size"}
PLACE = {"data", "size", "victim", "batch_size"}  # what of a paper's setting is told
SHOWN = ("psnr", "ssim", "lpips")  # measured in any case


def reproduce(
    recipe: str,
    *,
    size: Literal["small", "paper"] = "small",
    data_dir: Path | None = None,
    weights_dir: Path | None = None,
    out: Path = Path("results"),
    devices: int | None = None,
    wandb: Literal["online", "offline", "off"] = "offline",
) -> int:
    """Run a published table again and show it beside the paper's numbers; goes on where it was stopped.

    Args:
        recipe: its name, or a YAML file of your own.
        size: `paper`, as it was published; or `small`, minutes on two CPU cores.
        data_dir: the folder that holds the data sets that come as files; by default data, or ../shared/data.
        weights_dir: folder with weights that are not shipped; by default weights, or ../shared/weights.
        out: folder of results.
        devices: processes on this machine, by default one for each GPU or else for each CPU core.
        wandb: Weights & Biases logging.

    Returns:
        the exit code: 0; 2 where a cell was left out, for something is missing, or was refused; 1 where one failed
        otherwise; 130 after Ctrl-C.

    Raises:
        InputError: there is no such recipe, or it is not as it should be.
    """
    plan = read(recipe)
    everywhere: dict[str, Any] = {
        "data_dir": data_dir or there(DATA_DIRS),
        "weights_dir": weights_dir or there(WEIGHTS_DIRS),
    }
    if plan["command"] == "run":
        everywhere |= {"out": out, "wandb": wandb} | ({} if devices is None else {"devices": devices})
    cells = expand(plan, size, everywhere, out)
    lines, left_out = check(cells, plan["command"])
    for line, names in lines.items():
        print(f"benchmark: {line} ({'; '.join(names)})", file=sys.stderr)
    ready = [cell for cell in cells if cell.name not in left_out and (cell.method or not learned(cell).is_file())]
    failed = run_cells({cell.name: cell.arguments for cell in ready})
    published = [entry for entry in reported() if entry.table in plan["tables"]]
    if plan["command"] == "labels":
        tables = printed(published)
    else:
        done = {c.name: e for c in cells if c.method and c.name not in {*failed, *left_out} and (e := measured(c))}
        tables = [beside(f"{Path(recipe).stem}, {size}", plan["by"], cells, done, published)] if done else []
    for table in tables:
        print(f"\n{table.text()}")
    if tables:
        file = out / f"reproduce-{Path(recipe).stem}-{size}.md"
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(file, "\n".join(table.markdown() for table in tables))
        print(file)
    code = exit_code(dict.fromkeys(left_out, "left out") | failed, len(cells))
    return 2 if left_out else code


def there(folders: Sequence[Path]) -> Path:
    """The first that is there, else the first."""
    return next((folder for folder in folders if folder.is_dir()), folders[0])


# What is missing.


def check(cells: Sequence[Cell], command: str) -> tuple[dict[str, list[str]], set[str]]:
    """Lines on what is missing, each with the cells it is about; and the names of cells that cannot run.

    Images that are fewer than a cell asks for are said too, and keep no cell from running.
    """
    lines: dict[str, list[str]] = {}
    left_out: set[str] = set()
    files = {str(learned(cell)): cell.name for cell in cells if not cell.method}
    for cell in cells:
        config = cell.config
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the cell's own process says it
            line = missing(cell, command, files)
        if line is None and files.get(config.prior) in left_out:
            line = f"{files[config.prior]} cannot be learned."
        if line is not None:
            left_out.add(cell.name)
        elif cell.method and (have := len(loaded(config))) < (wanted := config.tasks * config.batch):
            line = f"{config.data} has {have} {config.split} images where {wanted} are wanted; some are attacked again."
        if line is not None:
            lines.setdefault(line, []).append(cell.name)
    return lines, left_out


def missing(cell: Cell, command: str, files: Mapping[str, str]) -> str | None:
    """Why a cell cannot run, and where what is missing belongs; None where it can.

    Args:
        files: of generators to be learned.
    """
    config = cell.config
    data = loaded(config)
    if isinstance(data, str):
        return data
    if not cell.method:
        return None
    if config.victim_weights == "calibrated" and isinstance(train := loaded(replace(config, split="train")), str):
        return train
    try:
        config.make_batches(data, config.tasks)
        config.weights_file()
        config.local_training()
        if command == "run":
            method: type[Attack] = find("attack", config.attack)
            config.method_options(method)
            if "prior" in method.needs and config.prior not in files:
                return has_prior(config.prior, config.weights_dir, config.size)
    except InputError as error:
        return str(error)
    return None


@cache
def has_prior(prior: str, weights_dir: Path, size: int) -> str | None:
    """None, or why it cannot be loaded."""
    try:
        Config(prior=prior, weights_dir=weights_dir, size=size).make_prior()
    except InputError as error:
        return str(error)
    return None


# What comes out.


def measured(cell: Cell) -> Entry | None:
    """The board's line of a cell; None where it has no rows."""
    board = entries(rows_of(cell.config))
    return board[0] if board else None


def beside(
    title: str, by: Sequence[str], cells: Sequence[Cell], done: Mapping[str, Entry], published: Sequence[Reported]
) -> Table:
    """Every cell with the paper's numbers and the measured ones."""
    shown = [cell for cell in cells if cell.method]
    papers = [paper(cell, by, published) for cell in shown]
    found = [done.get(cell.name) for cell in shown]
    columns = {"method": [cell.method for cell in shown]}
    columns |= {option: [str(getattr(cell.config, option)) for cell in shown] for option in by}
    columns["n"] = [str(entry.n) if entry else NOTHING for entry in found]
    if any(entry and entry.diverged for entry in found):
        columns["diverged"] = [str(entry.diverged) if entry else NOTHING for entry in found]
    printed = list(dict.fromkeys(metric for entry in published for metric in entry.values))
    for metric in dict.fromkeys([*printed, *SHOWN]):
        if metric in printed:
            columns[f"{metric} reported"] = [f"{p[metric]:.5g}" if metric in p else NOTHING for p in papers]
        if metric in metrics(done.values()):
            scores = [interval(entry.scores[metric], entry.n) if entry else NOTHING for entry in found]
            columns[f"{metric} measured"] = scores
    columns["s/task measured"] = [f"{entry.seconds:.3g}" if entry else NOTHING for entry in found]
    above = f"{title}: reported beside measured. Measured: {common(list(done.values()))}"
    return Table(above, columns, " ".join(map(told, by_table(published))))


def paper(cell: Cell, by: Sequence[str], published: Sequence[Reported]) -> Mapping[str, float]:
    """The paper's values for a cell."""
    place = {AS_IN_ROWS.get(option, option): getattr(cell.config, option) for option in by}
    same = (entry for entry in published if entry.method == cell.method)
    return next((e.values for e in same if all(e.setting.get(k, v) == v for k, v in place.items())), {})


def told(part: Sequence[Reported]) -> str:
    """Source, setting and note of one table."""
    alike = set.intersection(*({(k, e.setting[k]) for k in PLACE & e.setting.keys()} for e in part))
    setting = ", ".join(f"{key} {value}" for key, value in sorted(alike))
    return f"Reported: {part[0].source}; {setting}. {part[0].note}"


def by_table(published: Sequence[Reported]) -> list[list[Reported]]:
    return [list(part) for _, part in groupby(published, lambda entry: entry.table)]


def printed(published: Sequence[Reported]) -> list[Table]:
    """The paper's label recovery, a table each, as `labels` prints its own."""
    tables = []
    for part in by_table(published):
        methods = list(dict.fromkeys(entry.method for entry in part))
        columns = {"method": methods}
        for size in dict.fromkeys(entry.setting["batch_size"] for entry in part):
            at = {entry.method: entry for entry in part if entry.setting["batch_size"] == size}
            columns[f"B = {size}"] = [f"{at[method].values['label_counts']:.3f}" for method in methods]
        tables.append(Table("Labels recovered, as reported:", columns, told(part)))
    return tables
