"""Recipes: a published table as the runs that repeat it.

A recipe is a YAML file in `recipes/`:

- tables: of `leaderboard/reported.yaml`; none where the paper has but a figure.
- by: the options whose values tell a method's numbers apart.
- command: `run`, or `labels` for label recovery alone.
- cells: each has the method as the paper calls it and options of the command; those of one size stand in `paper` and
  `small`.
- defaults, paper, small: options of all cells, and of all of one size. A cell's own take precedence.

A list of values is a cell for each of them; `set` is a mapping, which adds to those above it. In `paper` and `small`,
`with` has what else goes with a value of an option, and `learn` generators that are learned first by `prior learn`,
which options then call `learned:NAME`.
"""

import hashlib
import itertools
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from benchmark.config import Config
from benchmark.labels import labels, whole_numbers
from benchmark.setting import Setting
from victims.choices import Resize
from victims.data.base import ImageData
from victims.errors import InputError
from victims.names import nearest, unknown

RECIPES = Path(__file__).parent
EMBEDDED = {"data": "photos", "size": 32, "prior": "dcgan-photos32"}  # for data that a small recipe does not find
SIZES = ("paper", "small")
MAPPINGS = ("set", "with", "learn", *SIZES)  # where a block has them
NEEDED, KNOWN = {"by", "cells", *SIZES}, {"tables", "command", "defaults", "by", "cells", *SIZES}


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


def read(recipe: str) -> dict[str, Any]:
    """The recipe's parts.

    Raises:
        InputError: no such name or file, or it is no recipe.
    """
    known = {path.stem: path for path in RECIPES.glob("*.yaml")}
    path = Path(recipe) if recipe.endswith(".yaml") else known.get(recipe)
    if path is None:
        raise InputError(unknown("recipe", recipe, known, own="a .yaml file"))
    try:
        plan = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} is no YAML that can be read ({' '.join(str(error).split())}); fix it.") from None
    if not isinstance(plan, dict) or not NEEDED <= plan.keys() <= KNOWN:
        raise InputError(f"{path} is no recipe; it has {', '.join(sorted(NEEDED))}, and at most {', '.join(KNOWN)}.")
    plan = {"tables": [], "command": "run", "defaults": {}} | plan
    if not all(isinstance(plan[key], list) for key in ("tables", "by", "cells")):
        raise InputError(f"{path} is no recipe: tables, by and cells are lists; fix it.")
    blocks = [plan["defaults"], *(plan[size] for size in SIZES), *plan["cells"]]
    if plan["command"] not in ("run", "labels") or not all(map(of_mappings, blocks)):
        raise InputError(
            f"{path} is no recipe: its command is run or labels; its parts, and {', '.join(MAPPINGS)} in them, are "
            "mappings; fix it."
        )
    options = Config.__dataclass_fields__.keys()
    if wrong := [option for option in map(str, plan["by"]) if option not in options]:
        near = nearest(wrong[0], options)
        raise InputError(f"{path}: by has '{wrong[0]}', which is no option of a run; {near}fix it.")
    if not all("method" in cell for cell in plan["cells"]):
        raise InputError(f"{path} has a cell without a method; fix it.")
    return plan


def of_mappings(block: Any) -> bool:
    """Whether it is a mapping, in which those are too that have to be."""
    return isinstance(block, dict) and all(isinstance(block.get(key, {}), dict) for key in MAPPINGS)


def expand(plan: Mapping[str, Any], size: str, everywhere: Mapping[str, Any], out: Path) -> list[Cell]:
    """The generators to be learned, then every cell of a size; cells that mean the same are one.

    In a small recipe embedded photographs stand in for data that are not there.

    Raises:
        InputError: an option is not known, or has no such value.
    """
    known = {name: generator(name, options, everywhere, out) for name, options in plan[size].get("learn", {}).items()}
    cells = {cell.name: cell for cell in known.values()}
    for method, options in combinations(plan, size):
        options = merged(everywhere, options)
        name = str(options.get("prior", "")).partition("learned:")[2]
        if name:
            if name not in known:
                raise InputError(f"the recipe learns no generator '{name}' in size {size}; it has {', '.join(known)}.")
            options["prior"] = learned(known[name])
        cell = make(method, plan["by"], plan["command"], options)
        if size == "small" and isinstance(loaded(cell.config), str):
            stand_in = {key: value for key, value in EMBEDDED.items() if key in options}
            cell = make(method, plan["by"], plan["command"], merged(options, stand_in))
        if cells.setdefault(cell.name, cell).arguments != cell.arguments:
            raise InputError(f"two different cells are called '{cell.name}'; add the option that differs to `by`.")
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
    if command == "run":
        options = {"preset": "default", **options}  # as it was when the recipe was written, whatever is tuned
    name = ", ".join([method, *(f"{option} {options[option]}" for option in by if option in options)])
    arguments = [f"--{key}={value}" for key, value in options.items() if key != "set"]
    arguments += [f"--set+={key}={value}" for key, value in options.get("set", {}).items()]
    parser = parser_of(command)
    try:
        chosen = parser.parse_args(arguments).as_dict()
    except ArgumentError as error:
        raise InputError(f"{name}: {' '.join(str(error).split()).rstrip('.')}; fix the recipe.") from None
    if command == "labels":
        alike = chosen.keys() & Config.__dataclass_fields__.keys() - {"batch"}
        largest = max(whole_numbers("batch", chosen["batch"]))
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


def generator(name: str, options: Mapping[str, Any], everywhere: Mapping[str, Any], out: Path) -> Cell:
    """What learns a generator; the file's name has a digest of options and images, so that other ones learn another."""
    chosen = {"data_dir": everywhere["data_dir"], **options}
    seen = {key: chosen[key] for key in ("data", "size", "data_dir", "batch") if key in chosen}
    config = Config(attack="giml", prior="none", split="train", **seen)
    data = loaded(config)
    identity = json.dumps([options, "" if isinstance(data, str) else data.digest()], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    arguments = [str(out / "priors" / f"{name}-{digest}.safetensors"), *(f"--{k}={v}" for k, v in chosen.items())]
    return Cell(method="", name=f"prior {name}", arguments=["prior", "learn", *arguments], config=config)


def learned(cell: Cell) -> Path:
    """The file of a generator to be learned."""
    return Path(cell.arguments[2])


def loaded(config: Setting) -> ImageData | str:
    """The images, or why there are none."""
    return images(config.data, config.split, config.size, config.data_dir, config.resize)


@cache
def images(data: str, split: str, size: int, data_dir: Path, resize: Resize) -> ImageData | str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Setting(data=data, split=split, size=size, data_dir=data_dir, resize=resize).make_data()
        except InputError as error:
            return str(error)
