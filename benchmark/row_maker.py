"""Rows of a run: what is the same for all of them, and the settings that they say."""

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import torch

from attacks.base import Attack
from benchmark.code_version import code_version
from benchmark.config import Config
from benchmark.device import device_name
from benchmark.scoring.judge import RowMaker
from benchmark.tracks.entry import track_of
from benchmark.tracks.track import read
from leaderboard.options import abouts
from leaderboard.rows import PROTOCOL, Row
from leaderboard.sweeps import TRAINING
from victims.preprocessing import Preprocessing, text


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
