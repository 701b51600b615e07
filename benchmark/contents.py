"""What goes into a run, by its content: code, weights and images, which can change under the same name.

Options name the folder of a run; its record says the contents that its rows are of, see `benchmark.launch.claim`.
"""

import hashlib
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from torch import Tensor
from torch.nn.parameter import is_lazy

from attacks import labels
from attacks.base import Attack
from benchmark.config import Config
from benchmark.registry import KINDS, find
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import strangers
from leaderboard.options import abouts
from leaderboard.run_folder import Contents
from priors.base import Prior
from victims.data.base import ImageData, image_digest
from victims.names import is_own
from victims.victim import Victim, build

PROJECT = frozenset(("attacks", "benchmark", "defenses", "gibench", "leaderboard", "priors", "tests", "victims"))
BASES = (*KINDS.values(), Prior)
DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")
LONG = 16  # digits of a digest

Modules = Mapping[str, Path]
"""Loaded modules that are neither Python's nor installed, with their files: those of the project and the user's own."""


def contents(config: Config, data: ImageData, victim: Victim, attack: Attack, batches: Sequence[Batch]) -> Contents:
    """What a run is made of. Tasks are listed one by one, for more of them extend the same run.

    What is drawn from the run's seed is looked at with seed 0, so that it tells no seeds apart.
    """
    modules, mean_image = loaded(), config.control == "mean_image"
    apart = ("data", "defense")
    of_victim = [name for name, about in abouts().items() if about.role == "setting" and name not in apart]
    parts = [] if config.defense == "none" else [part.partition(":")[0] for part in config.defense.split("+")]
    method = [] if config.labels in ("given", "none") else [labels.find(config.labels)]
    found: Contents = {
        "attack": sources(modules, words(config, "attack", "labels", "set"), type(attack), *method),
        "prior": {},
        "victim": sources(modules, words(config, *of_victim), *named_victim(config), type(victim.criterion)),
        "defense": sources(modules, config.defense, *(find("defense", part) for part in parts)),
        "data": {"the classes": of_text(list(data.classes)), "the images of the split": data.split_digest()},
        "tasks": {f"the images of task {place}": of_batch(config, data, b) for place, b in enumerate(batches)},
    }
    if mean_image:  # no attack is run
        found["attack"] = {}
    found["victim"]["the preprocessing"] = of_text((victim.preprocessing, data.mean, data.std))
    if is_own(config.victim):  # its constructor may load weights
        shape, classes = data.image_shape, len(data.classes)
        model = build(find("victim", config.victim), seed=0, image_shape=shape, num_classes=classes)
        found["victim"][f"the weights of {config.victim}"] = of_tensors(model.state_dict())
    if "prior" in attack.needs and not mean_image:
        found["prior"] = sources(modules, config.prior, type(attack.prior))
        found["prior"][f"the weights of {config.prior}"] = of_tensors(seedless(config, attack.prior).state_dict())
    if config.victim_weights == "calibrated" or config.between or mean_image:
        train = config.make_data("train")
        used = sorted({*train.sample(512), *train.sample(1024)})
        found["attack" if mean_image else "victim"]["the training images"] = of_images(train, used)
    return found


def digests(found: Contents) -> dict[str, str]:
    """What a row says: for each of `attack`, `prior`, `victim`, `defense` and `data` one digest; empty of nothing."""
    kinds = {kind: parts for kind, parts in found.items() if kind != "tasks"}
    return {f"{kind}_digest": of_text(sorted(parts.items())) if parts else "" for kind, parts in kinds.items()}


def of_training(config: Config, method: type) -> str:
    """Of what a generator is learned from: the code of method, victim and defense, and the training images."""
    code = sources(loaded(), words(config, "victim", "defense"), *named_victim(config), method)
    return of_text((config.make_data("train").digest(), code))


# Code


def loaded() -> Modules:
    files = {name: getattr(module, "__dict__", {}).get("__file__") for name, module in list(sys.modules.items())}
    return {
        name: Path(file)
        for name, file in files.items()
        if file
        and name.partition(".")[0] not in sys.stdlib_module_names
        and not name.startswith("__")
        and "site-packages" not in file
        and "dist-packages" not in file
    }


def sources(modules: Modules, written: str, *named: Callable[..., object]) -> dict[str, str]:
    """The files of classes and functions, and of what the user's own among them import.

    Of the project's files only those of named classes count: the version of the code says the rest. Own modules are
    followed by their names, in whatever way one imports another: `import b`, `from .b import c`, a text with its name.

    Args:
        written: options, which may hold dotted paths.
    """
    names = {path.rpartition(".")[0] for path in DOTTED.findall(written)}
    for one in named:
        lineage = takewhile(lambda base: base not in BASES, one.__mro__) if isinstance(one, type) else [one]
        names |= {getattr(base, "__module__", "") for base in lineage}
    found = names & modules.keys()
    tops = {name: name.partition(".")[0] for name in modules}
    new = {name for name in found if tops[name] not in PROJECT}
    while new:
        text = " ".join(modules[name].read_text(errors="ignore") for name in new)
        mentioned = {tops[name] for name in new} | set(re.findall(r"\w+", text))
        new = {name for name, top in tops.items() if top in mentioned and top not in PROJECT} - found
        found |= new
    return {file_name(name, modules[name]): of_bytes(modules[name].read_bytes()) for name in sorted(found)}


def words(config: Config, *options: str) -> str:
    return " ".join(str(getattr(config, name)) for name in options)


def named_victim(config: Config) -> list[Callable[..., object]]:
    """The class or function of the victim, unless it is a library's."""
    return [] if ":" in config.victim else [find("victim", config.victim)]


def file_name(module: str, path: Path) -> str:
    """A module's file from where it is imported, for it may lie elsewhere on another machine."""
    inside = "/__init__" if path.stem == "__init__" else ""
    return f"{module.replace('.', '/')}{inside}{path.suffix}"


# Weights and images


def seedless(config: Config, prior: Prior) -> Prior:
    """The prior of seed 0."""
    if config.seed == 0:
        return prior
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has been said of the run's own
        return replace(config, seed=0).make_prior()


def of_tensors(state: Mapping[str, object]) -> str:
    """Of the tensors of a state, at most in single precision."""
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if isinstance(tensor, Tensor) and not is_lazy(tensor):
            plain = tensor.detach().cpu()
            plain = plain.float() if plain.is_floating_point() else plain
            found.update(f"{name} {tuple(plain.shape)}".encode())
            found.update(plain.contiguous().reshape(-1).numpy().data)
    return found.hexdigest()[:LONG]


def of_batch(config: Config, data: ImageData, batch: Batch) -> str:
    """Of the images of a task; under `shuffled_update` also of those whose update is shown."""
    shown = strangers(data, batch) if config.control == "shuffled_update" else ()
    return of_images(data, [*batch.indices, *shown])


def of_images(data: ImageData, indices: Iterable[int]) -> str:
    return of_text([(data.ids[index], image_digest(*data[index])) for index in indices])


def of_text(value: object) -> str:
    return of_bytes(repr(value).encode(errors="surrogatepass"))


def of_bytes(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()[:LONG]
