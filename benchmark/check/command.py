"""`python -m benchmark check my.module.Attack`: the contracts of its kind, on what is not of this suite."""

import inspect
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import nn

from attacks.base import Attack
from benchmark.check import attack, data, defense, loss, metric, prior, victim
from benchmark.check.attack_case import Case
from benchmark.check.fails import Fails
from benchmark.device import reproducible
from benchmark.registry import open_loss, open_victim
from benchmark.scoring.metrics import METRICS
from defenses.base import Defense
from priors import by_name as priors_by_name
from priors.base import Denoiser, Generator, Prior
from victims.contract import Broken, line_of, line_of_error
from victims.data.base import ImageData
from victims.errors import InputError
from victims.losses.base import Loss
from victims.names import at, imported

Contract = Callable[[], None]

LONGEST = 400  # letters of a line


def check(plugin: str, *, data_dir: Path = Path("data"), weights_dir: Path = Path("weights"), size: int = 32) -> int:
    """Try the contracts of an attack, defense, prior, victim, data set, metric or loss of your own; 1 if some fail.

    Args:
        plugin: its dotted path, such as my.module.Attack; with arguments as a run takes them, my.module.Data:ARGUMENT.
        data_dir: folder with images, for a data set that reads files.
        weights_dir: folder with weights that are not shipped, for a prior that reads a file.
        size: side of the images of a data set or prior.

    Raises:
        InputError: it cannot be imported or built, or is none of these.
    """
    reproducible()
    item = at("plug-in", plugin.partition(":")[0]) if "." in plugin else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind, contracts = contracts_of(plugin, item, data_dir, weights_dir, size)
        print(f"{plugin} as {kind}", flush=True)
        failed, said = 0, dict[str, str]()
        for place, contract in enumerate(contracts):
            why = failure(contract, item)
            name = name_of(contract)
            again = f"for the same reason as '{said[why]}'" if why in said else why
            print(f"fails  {name}: {again}" if why else f"holds  {name}", flush=True)
            said.setdefault(why, name)
            failed += bool(why)
            if why and not place:
                print(f"       the {len(contracts) - 1} other contracts are tried when this one holds")
                return 1
    print(f"{failed} of {len(contracts)} contracts fail" if failed else f"all {len(contracts)} contracts hold")
    return int(failed > 0)


def contracts_of(
    plugin: str, item: Any, data_dir: Path, weights_dir: Path, size: int
) -> tuple[str, Sequence[Contract]]:
    """What a plug-in is, in words, and its contracts, the first of which the others need.

    Raises:
        InputError: it is of no kind that is known here, or cannot be built.
    """
    name = plugin.partition(":")[0]
    if isinstance(item, type) and issubclass(item, Attack):
        return "an attack", of_attack(item)
    if isinstance(item, type) and issubclass(item, Defense):
        if plugin != name:
            raise InputError(f"a defense is tried under its examples; give {name} alone.")
        return "a defense", of_defense(name)
    if isinstance(item, type) and issubclass(item, ImageData):
        imported("data set", name, ImageData)
        return "a data set", bound(data.CONTRACTS, data.Case(plugin, data_dir, size))
    if isinstance(item, type) and issubclass(item, Prior):
        opened = priors_by_name.find(plugin, weights_dir, size=size, seed=0)
        if isinstance(opened, Generator):
            return "a generator", bound(prior.OF_GENERATORS, opened)
        if isinstance(opened, Denoiser):
            return "a denoiser", bound(prior.OF_DENOISERS, opened)
    if isinstance(item, type) and issubclass(item, Loss):
        return "a loss", bound(loss.CONTRACTS, open_loss(plugin))
    if getattr(METRICS.get(getattr(item, "__name__", "")), "function", None) is item and item is not None:
        found = METRICS[item.__name__]
        if found.needs:
            raise InputError(f"{plugin} needs {', '.join(found.needs)}; only metrics of two images can be checked.")
        return "a metric", bound(metric.CONTRACTS, found)
    module = isinstance(item, type) and issubclass(item, nn.Module)
    if module or (
        inspect.isfunction(item) and {"image_shape", "num_classes"} <= inspect.signature(item).parameters.keys()
    ):
        return "a victim", bound(victim.CONTRACTS, open_victim(plugin))
    raise InputError(
        f"'{plugin}' is none of what can be checked; give the dotted path of a class of an attack, defense, prior, "
        "victim, data set or loss, or of a function under @metric, such as my.module.Attack."
    )


def bound(contracts: Sequence[Callable[[Any], None]], case: Any) -> list[Contract]:
    return [partial(contract, case) for contract in contracts]


def of_attack(method: type[Attack]) -> list[Contract]:
    """Of the generator's contract only for attacks that search one; under defenses only for those that take them."""
    case = Case(method)
    contracts = bound(attack.CONTRACTS, case)
    if attack.searches_a_generator(method):
        contracts.append(partial(attack.a_generator_of_larger_images_is_searched_at_any_size, case))
    if not method.analytic and method.made_for.get("defense") != "none":
        contracts.append(partial(attack.steps_change_the_variables_under_a_defense, case, defense.together("precode")))
    return contracts


def of_defense(name: str) -> list[Contract]:
    """Of the whole defense, of its surrogates, and of every example under each."""
    case = defense.Case(name)
    brings = defense.a_surrogate_brings_the_true_gradient_no_further_from_the_update
    return [
        *bound(defense.CONTRACTS, case),
        *(partial(defense.a_surrogate_depends_only_on_the_update, case, each) for each in case.surrogates),
        *(partial(brings, case, use, each) for use in case.uses for each in case.surrogates),
    ]


def name_of(contract: Contract) -> str:
    """The name of its function as words, with what else it is given."""
    given: list[Any] = []
    function: Any = contract
    while isinstance(function, partial):
        given = [*(each for each in function.args if isinstance(each, str)), *function.keywords.values(), *given]
        function = function.func
    told = ", ".join(str(each) for each in given if each != "")
    return function.__name__.replace("_", " ") + (f" ({told})" if told else "")


def failure(contract: Contract, item: Any) -> str:
    """Why a contract does not hold, in one line with the author's own; empty if it holds."""
    try:
        contract()
    except Fails as error:
        why, place = str(error), line_of(*error.places, item)
    except Broken as error:
        why, place = f"{error.contract}: {error.why}", ""
    except InputError as error:
        why, place = str(error), line_of_error(error, item)
    except SystemExit as error:
        why, place = f"it calls sys.exit({error.code!r}); raise an error instead", line_of_error(error, item)
    except Exception as error:  # of the author's own code
        why, place = f"{type(error).__name__}: {error}", line_of_error(error, item)
    else:
        return ""
    return shorten(why, LONGEST) + (f" ({place})" if place and place not in why else "")
