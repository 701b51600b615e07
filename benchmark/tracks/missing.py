"""What a track needs and this machine has not: images, weights, a GPU."""

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import torch

from benchmark.setting import Setting
from benchmark.tracks.entry import setting_of
from benchmark.tracks.track import Track
from priors import names
from victims.errors import InputError, Notice


def require(track: Track, kinds: Collection[str], options: Mapping[str, Any]) -> None:
    """
    Raises:
        InputError: all that is missing, before anything is computed.
    """
    if found := missing(track, kinds, options):
        raise InputError(f"the track {track.name} needs what is not here: {'; '.join(found)}.")


def missing(track: Track, kinds: Collection[str], options: Mapping[str, Any]) -> list[str]:
    """A phrase for each thing that is not here, and where it belongs.

    Args:
        kinds: of the priors that are needed.
        options: of the run, beside those of the track.
    """
    config, published = setting_of(track, options), names.published()
    wanted = [name for kind, name in track.priors.items() if kind in kinds and name in published]
    paths = {name: published[name].path(config.weights_dir) for name in wanted}
    found = [images(config), victim_weights(config)]
    found += [f"prior {n}: {p}, from {published[n].source}" for n, p in paths.items() if not p.is_file()]
    if track.tier == "gpu" and not torch.cuda.is_available():
        found.append("a GPU, which PyTorch does not find")
    return [phrase for phrase in found if phrase]


def images(config: Setting) -> str:
    """How many of the images are here; empty where they suffice."""
    needed, here, why = config.tasks * config.batch, 0, ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)  # the run itself will say it
            here = len(config.make_data())
    except InputError as error:
        why = f" ({str(error).rstrip('.')})"
    there = f"{needed} {config.split} images of {config.data}, of which {config.data_dir} has {here}"
    return there + why if here < needed else ""


def victim_weights(config: Setting) -> str:
    """Why the victim has no weights; empty where it has."""
    try:
        config.weights_file()
    except InputError as error:
        return str(error).rstrip(".")
    return ""
