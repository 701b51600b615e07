"""`python -m benchmark reproduce`: a published table, run again, beside its numbers.

A recipe is a YAML file in `recipes/`:

- tables: of `leaderboard/reported.yaml`; none where the paper has but a figure.
- by: the options whose values tell a method's numbers apart.
- command: `run`, or `labels` for label recovery alone.
- cells: each has the method as the paper calls it and options of the command; those of one size stand in `paper` and
  `small`.
- defaults, paper, small: options of all cells, and of all of one size. A cell's own go before them.

A list of values is a cell for each of them; `set` is a mapping, which adds to those above it. In `paper` and `small`,
`with` has what else goes with a value of an option, and `learn` generators that are learned first by `prior learn`,
which options then call `learned:NAME`.
"""

import hashlib
import itertools
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from benchmark.config import Config
from benchmark.labels import labels
from benchmark.lpips_backbone import Lpips
from benchmark.matrix import exit_code, run_cells
from benchmark.registry import find
from benchmark.rows import METRICS, read_rows, write_atomically
from leaderboard.board import Entry, entries
from leaderboard.reported import Reported, reported
from leaderboard.table import NOTHING, Table, common, interval
from victims.data.base import ImageData
from victims.errors import InputError
from victims.names import unknown

RECIPES = Path(__file__).parent / "recipes"
DATA_DIRS, WEIGHTS_DIRS = (Path("data"), Path("../shared/data")), (Path("weights"), Path("../shared/weights"))
EMBEDDED = {"data": "photos", "size": 32, "prior": "dcgan-photos32"}  # for data that a small recipe does not find
SIZES = ("paper", "small")
NEEDED, KNOWN = {"by", "cells", *SIZES}, {"tables", "command", "defaults", "by", "cells", *SIZES}
AS_IN_ROWS = {"batch": "batch_size"}
SHOWN = ("psnr", "ssim", "lpips")  # measured in any case


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One process of a recipe.

    Attributes:
        method: as the paper calls it; "" for a generator to be learned.
        name: what tells it from the recipe's others.
        arguments: its command line.
        config: what that means; of `labels` that of its largest batches.
    """

    method: str
    name: str
    arguments: list[str]
    config: Config


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
    common = {"data_dir": data_dir or there(DATA_DIRS), "weights_dir": weights_dir or there(WEIGHTS_DIRS)}
    if plan["command"] == "run":
        common |= {"out": out, "wandb": wandb} | ({} if devices is None else {"devices": devices})
    cells = expand(plan, size, common, out)
    lines, left_out = check(cells, plan["command"])
    for line, names in lines.items():
        print(f"benchmark: {line} ({'; '.join(names)})", file=sys.stderr)
    ready = [cell for cell in cells if cell.name not in left_out and (cell.method or not learned(cell).is_file())]
    try:
        failed = run_cells({cell.name: cell.arguments for cell in ready})
    except KeyboardInterrupt:
        return 130
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


# What a recipe says.


def read(recipe: str) -> dict[str, Any]:
    """The recipe's parts.

    Raises:
        InputError: no such name or file, or it is no recipe.
    """
    known = {path.stem: path for path in RECIPES.glob("*.yaml")}
    path = Path(recipe) if recipe.endswith(".yaml") else known.get(recipe)
    if path is None:
        raise InputError(unknown("recipe", recipe, known).replace("a dotted path to your own", "a .yaml file"))
    try:
        plan = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} is no YAML that can be read ({' '.join(str(error).split())}); mend it.") from None
    if not isinstance(plan, dict) or not NEEDED <= plan.keys() <= KNOWN:
        raise InputError(f"{path} is no recipe; it has {', '.join(sorted(NEEDED))}, and at most {', '.join(KNOWN)}.")
    plan = {"tables": [], "command": "run", "defaults": {}} | plan
    blocks = [plan["defaults"], *(plan[size] for size in SIZES), *plan["cells"]]
    if plan["command"] not in ("run", "labels") or not all(isinstance(block, dict) for block in blocks):
        raise InputError(f"{path} is no recipe: its command is run or labels, its parts are mappings; mend it.")
    if not all("method" in cell for cell in plan["cells"]):
        raise InputError(f"{path} has a cell without a method; mend it.")
    return plan


def expand(plan: Mapping[str, Any], size: str, common: Mapping[str, Any], out: Path) -> list[Cell]:
    """The generators to be learned, then every cell of a size; cells that mean the same are one.

    In a small recipe embedded photographs stand in for data that are not there.

    Raises:
        InputError: an option is not known, or has no such value.
    """
    known = {name: generator(name, options, common, out) for name, options in plan[size].get("learn", {}).items()}
    cells = {cell.name: cell for cell in known.values()}
    for method, options in combinations(plan, size):
        options = merged(common, options)
        name = str(options.get("prior", "")).partition("learned:")[2]
        if name:
            if name not in known:
                raise InputError(f"the recipe learns no generator '{name}' in size {size}; it has {', '.join(known)}.")
            options["prior"] = learned(known[name])
        cell = make(method, plan["by"], plan["command"], options)
        if size == "small" and isinstance(loaded(cell.config), str):
            stand_in = {key: value for key, value in EMBEDDED.items() if key in options}
            cell = make(method, plan["by"], plan["command"], merged(options, stand_in))
        cells.setdefault(cell.name, cell)
    return list(cells.values())


def combinations(plan: Mapping[str, Any], size: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Method and options of every cell."""
    block = plan[size]
    whole = {key: value for key, value in block.items() if key not in ("with", "learn")}
    for cell in plan["cells"]:
        own = {key: value for key, value in cell.items() if key not in ("method", *SIZES)}
        options = merged(plan["defaults"], whole, own, cell.get(size, {}))
        values = [value if isinstance(value, list) else [value] for value in options.values()]
        for chosen in itertools.product(*values):
            one = dict(zip(options, chosen, strict=True))
            for option, others in block.get("with", {}).items():
                one = merged(one, others.get(one.get(option), {}))
            yield cell["method"], one


def merged(*blocks: Mapping[str, Any]) -> dict[str, Any]:
    """Later ones win; those in `set` add up."""
    options = {key: value for block in blocks for key, value in block.items()}
    single = {key: value for block in blocks for key, value in block.get("set", {}).items()}
    return options | ({"set": single} if single else {})


def make(method: str, by: Sequence[str], command: str, options: Mapping[str, Any]) -> Cell:
    """
    Raises:
        InputError: an option is not known, or has no such value.
    """
    name = ", ".join([method, *(f"{option} {options[option]}" for option in by if option in options)])
    arguments = [f"--{key}={value}" for key, value in options.items() if key != "set"]
    arguments += [f"--set+={key}={value}" for key, value in options.get("set", {}).items()]
    parser = parser_of(command)
    try:
        chosen = parser.parse_args(arguments).as_dict()
    except ArgumentError as error:
        raise InputError(f"{name}: {' '.join(str(error).split()).rstrip('.')}; mend the recipe.") from None
    if command == "labels":
        alike = chosen.keys() & Config.__dataclass_fields__.keys() - {"batch"}
        largest = max(map(int, chosen["batch"].split(",")))
        chosen = {key: chosen[key] for key in alike} | {"batch": largest, "tasks": chosen["trials"]}
    return Cell(method=method, name=name, arguments=[command, *arguments], config=Config(**chosen))


@cache
def parser_of(command: str) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    if command == "run":
        parser.add_class_arguments(Config)
    else:
        parser.add_function_arguments(labels)
    return parser


def generator(name: str, options: Mapping[str, Any], common: Mapping[str, Any], out: Path) -> Cell:
    """What learns a generator; the file's name has a digest of the options, so that other ones learn another."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:8]
    chosen = {"data_dir": common["data_dir"], **options}
    arguments = [str(out / "priors" / f"{name}-{digest}.safetensors"), *(f"--{k}={v}" for k, v in chosen.items())]
    seen = {key: chosen[key] for key in ("data", "size", "data_dir", "batch") if key in chosen}
    return Cell(
        method="", name=f"prior {name}", arguments=["prior", "learn", *arguments], config=Config(split="train", **seen)
    )


def learned(cell: Cell) -> Path:
    """The file of a generator to be learned."""
    return Path(cell.arguments[2])


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
            method = find("attack", config.attack)
            config.method_options(method)
            if "prior" in method.needs and config.prior not in files:
                return has_prior(config.prior, config.weights_dir, config.size)
    except InputError as error:
        return str(error)
    return None


def loaded(config: Config) -> ImageData | str:
    """The images, or why there are none."""
    return images(config.data, config.split, config.size, config.data_dir, config.resize)


@cache
def images(data: str, split: str, size: int, data_dir: Path, resize: str) -> ImageData | str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Config(data=data, split=split, size=size, data_dir=data_dir, resize=resize).make_data()
        except InputError as error:
            return str(error)


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
    config = cell.config
    rows, _ = read_rows(config.folder(Lpips.find(config.weights_dir).available) / "rows.jsonl")
    board = entries(rows[: config.tasks * config.batch])  # what a longer run left stands behind
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
    printed = list(dict.fromkeys(metric for entry in published for metric in entry.values))
    for metric in dict.fromkeys([*printed, *SHOWN]):
        if metric in printed:
            columns[f"{metric} reported"] = [f"{p[metric]:.5g}" if metric in p else NOTHING for p in papers]
        if metric in METRICS:
            scores = [interval(entry.scores[metric], entry.n) if entry else NOTHING for entry in found]
            columns[f"{metric} measured"] = scores
    columns["s/task measured"] = [f"{entry.seconds:.3g}" if entry else NOTHING for entry in found]
    above = f"{title}: reported beside measured. Measured: {common(list(done.values()))}"
    return Table(above, columns, " ".join(map(told, {entry.table: entry for entry in published}.values())))


def paper(cell: Cell, by: Sequence[str], published: Sequence[Reported]) -> Mapping[str, float]:
    """The paper's values for a cell."""
    place = {AS_IN_ROWS.get(option, option): getattr(cell.config, option) for option in by}
    same = (entry for entry in published if entry.method == cell.method)
    return next((e.values for e in same if all(e.setting.get(k, v) == v for k, v in place.items())), {})


def told(entry: Reported) -> str:
    setting = {key: value for key, value in entry.setting.items() if key in ("data", "size", "victim", "batch_size")}
    return f"Reported: {entry.source}; {', '.join(f'{k} {v}' for k, v in setting.items())}. {entry.note}"


def printed(published: Sequence[Reported]) -> list[Table]:
    """The paper's label recovery, a table each, as `labels` prints its own."""
    tables = []
    for name in dict.fromkeys(entry.table for entry in published):
        part = [entry for entry in published if entry.table == name]
        methods = list(dict.fromkeys(entry.method for entry in part))
        columns = {"method": methods}
        for size in dict.fromkeys(entry.setting["batch_size"] for entry in part):
            at = {entry.method: entry for entry in part if entry.setting["batch_size"] == size}
            columns[f"B = {size}"] = [f"{at[method].values['label_counts']:.3f}" for method in methods]
        tables.append(Table("Labels recovered, as reported:", columns, told(part[0])))
    return tables
