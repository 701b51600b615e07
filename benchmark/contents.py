"""What goes into a run, by its content: code, weights and images, which can change under the same name.

Options name the folder of a run; its record says the contents that its rows are of, see `benchmark.launch.claim`.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor
from torch.nn.parameter import is_lazy

from attacks import labels
from attacks.base import Attack
from benchmark.config import Config
from benchmark.registry import find
from benchmark.sources import loaded, of_text, sources
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import strangers
from leaderboard.options import abouts
from leaderboard.run_folder import Contents
from priors.base import Prior
from victims.data.base import ImageData, image_digest
from victims.names import is_own
from victims.victim import Victim, build


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


def words(config: Config, *options: str) -> str:
    return " ".join(str(getattr(config, name)) for name in options)


def named_victim(config: Config) -> list[Callable[..., object]]:
    """The class or function of the victim, unless it is a library's."""
    return [] if ":" in config.victim else [find("victim", config.victim)]


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
    return found.hexdigest()[:16]


def of_batch(config: Config, data: ImageData, batch: Batch) -> str:
    """Of the images of a task; under `shuffled_update` also of those whose update is shown."""
    shown = strangers(data, batch) if config.control == "shuffled_update" else ()
    return of_images(data, [*batch.indices, *shown])


def of_images(data: ImageData, indices: Iterable[int]) -> str:
    return of_text([(data.ids[index], image_digest(*data[index])) for index in indices])
