"""The process of a sealed attack, in a folder of its own.

It reads observations.pt there and writes results.pt. Where reconstructions.pt is there too, it attacks nothing, and
computes what these cost.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from attacks.base import Attack
from attacks.engine.objective import Objective
from benchmark.device import reproducible
from benchmark.sealed.limits import confine
from benchmark.sealed.observations import load, rebuilt
from benchmark.sources import unimported
from benchmark.tracks.entry import setting_of
from benchmark.tracks.record import scored
from benchmark.tracks.track import read
from victims.errors import InputError
from victims.observation import Observation

OBSERVATIONS, RECONSTRUCTIONS, RESULTS = "observations.pt", "reconstructions.pt", "results.pt"

Found = dict[str, Any]
"""Of a task: `images` (B, C, H, W), normalized, their `labels`, `cost` and `evaluations`; or an `error` in words."""


def start(method: str, weights: str, *paths: str) -> None:
    """What `benchmark.sealed.attack` calls; ends with one line where the method cannot be run."""
    try:
        main(method, weights, paths)
    except InputError as error:
        sys.exit(f"{error}")


def main(method: str, weights: str, paths: Sequence[str]) -> None:
    """
    Args:
        paths: where modules are looked for besides the project and what is installed.

    Raises:
        InputError: the method cannot be run on the track.
    """
    reproducible()
    own, weights_dir = Path.cwd(), Path(weights)
    content = load(own / OBSERVATIONS)
    track = read(content["track"])
    if track.version != content["version"]:
        raise InputError(f"the tasks are of version {content['version']} of {track.name}, here it is {track.version}.")
    setting = setting_of(track, {})
    options = " ".join([method, *map(str, vars(setting).values()), *track.priors.values()])
    sys.path.extend(paths)  # looked into until the limits hold; nothing of the user's own is imported earlier
    files = [*unimported(options).values(), track.path, track.tuned(method), *weights_dir.rglob("*")]
    print(confine(files, own), flush=True)  # before any line of the method can run
    observations = rebuilt(content, setting)
    given = {"seed": content["seed"], "weights_dir": weights_dir, "compile": "off"}
    attack = scored(track, method, given, lambda config: observations[0]).make_attack()
    if Path(RECONSTRUCTIONS).exists():
        tasks = [
            tried(cost, attack, *pair) for pair in zip(observations, load(own / RECONSTRUCTIONS)["tasks"], strict=True)
        ]
    else:
        tasks = reconstruct(attack, observations)
    torch.save({"tasks": tasks}, RESULTS)


def reconstruct(attack: Attack, observations: Sequence[Observation]) -> list[Found]:
    """One task after another, as in a run; where one fails, the next goes on."""
    attack.tasks = len(observations)
    return [tried(attempt, attack, observation) for observation in observations]


def tried(work: Callable[..., Found], *given: Any) -> Found:
    try:
        return work(*given)
    except Exception as error:  # of the attack: anything
        return {"error": f"{type(error).__name__}: {error}"}


def attempt(attack: Attack, observation: Observation) -> Found:
    result = attack.run([observation])
    return {
        "images": result.images[0],
        "labels": result.labels[0],
        "cost": float(result.cost[0]),
        "evaluations": result.gradient_evaluations,
    }


def cost(attack: Attack, observation: Observation, found: Found) -> Found:
    """What a reconstruction costs, by the attack's distance, and what the mean color does.

    Empty where there is none, and where the cost is that of a model that the attack moved (`match` is `sme`).
    """
    if "error" in found or attack.match == "sme":
        return {}
    observation = attack.prepare(observation)
    assert attack.paths is not None, "prepare sets them"
    objective = Objective([observation], attack.distance, attack.paths)
    both = (found["images"][None], torch.zeros_like(found["images"])[None])
    computed, of_color = (float(objective.cost(images, found["labels"][None])) for images in both)
    return {"cost": computed, "of_mean_color": of_color}
