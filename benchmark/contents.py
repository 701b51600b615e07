"""What goes into a run, by its content: code, weights and images, which can change under the same name.

Options name the folder of a run; its record says the contents that its rows are of, see `benchmark.launch.claim`.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from attacks import labels
from attacks.base import Attack
from benchmark.config import Config
from benchmark.registry import find, one_defense, open_loss, open_optimizer, open_victim
from benchmark.setting import Setting
from benchmark.sources import loaded, of_text, sources
from benchmark.state import WEIGHTS, of_state, of_tensors
from benchmark.tasks.batches import Batch
from benchmark.tasks.controls import strangers
from leaderboard.options import abouts
from leaderboard.run_folder import Contents
from priors.base import Prior
from victims import rounds
from victims.by_name import LIBRARIES
from victims.data.base import ImageData, image_digest
from victims.modules import build
from victims.victim import Victim


def contents(config: Config, data: ImageData, victim: Victim, attack: Attack, batches: Sequence[Batch]) -> Contents:
    """What a run is made of. Tasks are listed one by one, for more of them extend the same run.

    What is drawn from the run's seed is looked at with seed 0, so that it tells no seeds apart.
    """
    states = of_own(config, data)  # first, for it imports what `loaded` then finds
    modules, mean_image = loaded(), config.control == "mean_image"
    apart = ("data", "defense")
    of_victim = [name for name, about in abouts().items() if about.role == "setting" and name not in apart]
    parts = [] if config.defense == "none" else [part.partition(":")[0] for part in config.defense.split("+")]
    method = [] if config.labels in ("given", "none") else [labels.find(config.labels)]
    training = [rounds.train] if config.between or config.epochs_trained != "0" else []
    found: Contents = {
        "attack": sources(modules, words(config, "attack", "labels", "set"), type(attack), *method),
        "prior": {},
        "victim": sources(modules, words(config, *of_victim), *named_victim(config), type(victim.criterion), *training),
        "defense": sources(modules, config.defense, *(find("defense", part) for part in parts)),
        "data": {"the classes": of_text(list(data.classes)), "the images of the split": data.split_digest()},
        "tasks": {f"the images of task {place}": of_batch(config, data, b) for place, b in enumerate(batches)},
    }
    if config.epochs_trained != "0":  # the same training on another processor may give others
        found["tasks"]["the trained weights"] = of_tensors(victim.model.state_dict())
    found["victim"]["the preprocessing"] = of_text((victim.preprocessing, data.mean, data.std))
    for (kind, name), state in states.items():
        found[kind][f"the state of {name}"] = state
    if "prior" in attack.needs and not mean_image:
        prior = seedless(config, attack.prior, Config.make_prior)
        found["prior"] |= sources(modules, config.prior, type(prior))
        found["prior"][f"the weights of {config.prior}"] = of_tensors(prior.state_dict())
    if attack.refine is not None and not mean_image:
        denoiser = seedless(config, attack.refine, Config.make_denoiser)
        found["prior"] |= sources(modules, config.refine, type(denoiser))
        found["prior"][f"the weights of {config.refine}, which refines"] = of_tensors(denoiser.state_dict())
    if mean_image:  # no attack is run
        found["attack"] = {}
    if training or config.victim_weights == "calibrated" or mean_image:
        train = config.make_data("train")
        used = sorted({*train.sample(512), *train.sample(1024)})
        found["attack" if mean_image else "victim"]["the training images"] = of_images(train, used)
        if training:
            found["victim"]["the training split"] = train.split_digest()
    return found


def digests(found: Contents) -> dict[str, str]:
    """What a row says: for each of `attack`, `prior`, `victim`, `defense` and `data` one digest; empty of nothing."""
    kinds = {kind: parts for kind, parts in found.items() if kind != "tasks"}
    return {f"{kind}_digest": of_text(sorted(parts.items())) if parts else "" for kind, parts in kinds.items()}


def of_training(config: Setting, victim: Victim, method: type) -> str:
    """Of what a network is trained on: the victim's weights, the training images, and the code of both and the defense.

    Args:
        victim: the one that computes the updates.
        method: that learns from them.
    """
    code = sources(loaded(), words(config, "victim", "defense"), *named_victim(config), method)
    return of_text((config.make_data("train").digest(), of_tensors(victim.model.state_dict()), code))


def words(config: Setting, *options: str) -> str:
    return " ".join(str(getattr(config, name)) for name in options)


def named_victim(config: Setting) -> list[Callable[..., object]]:
    """The class or function of the victim, unless it is a library's."""
    name = config.victim.partition(":")[0]
    return [] if name in LIBRARIES else [find("victim", name)]


# Weights and images


def of_own(config: Config, data: ImageData) -> dict[tuple[str, str], str]:
    """What the user's own classes hold once they are built, by kind and name: their constructors may read files."""
    seedless = replace(config, seed=0)
    shape, classes = data.image_shape, len(data.classes)
    makers: dict[tuple[str, str], Callable[[], object]] = {
        ("attack", config.attack): seedless.make_attack,
        ("victim", config.victim): lambda: open_victim(config.victim)(image_shape=shape, num_classes=classes),
        ("victim", config.loss): partial(open_loss, config.loss),
        ("victim", config.local_optimizer): partial(open_optimizer, config.local_optimizer),
        **{("defense", part): partial(one_defense, part) for part in config.defense.split("+")},
    }
    own = {named: make for named, make in makers.items() if "." in named[1].partition(":")[0]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has been said of the run's own
        built = {named: build(make, seed=0) for named, make in own.items()}
    for made in built.values():
        if isinstance(made, Attack):
            for prior in ("prior", "refine"):  # told by themselves, and what every attack has by the options
                made._modules.pop(prior, None)
    common = vars(Attack({"x": 1})).keys() - WEIGHTS
    return {named: of_state(made, common if isinstance(made, Attack) else ()) for named, made in built.items()}


def seedless(config: Config, prior: Prior, make: Callable[[Config], Prior]) -> Prior:
    """The prior of seed 0.

    Args:
        prior: that of the configuration's own seed.
    """
    if config.seed == 0:
        return prior
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has been said of the run's own
        return make(replace(config, seed=0))


def of_batch(config: Setting, data: ImageData, batch: Batch) -> str:
    """Of the images of a task; under `shuffled_update` also of those whose update is shown."""
    shown = strangers(data, batch) if config.control == "shuffled_update" else ()
    return of_images(data, [*batch.indices, *shown])


def of_images(data: ImageData, indices: Iterable[int]) -> str:
    return of_text([(data.ids[index], image_digest(*data[index])) for index in indices])
