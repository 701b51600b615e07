"""The file that a sealed attack gets: what `Observation` has, as tensors and numbers."""

import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.device import best_device
from benchmark.setting import Setting
from benchmark.tasks.capture import declared
from benchmark.tracks.track import Track
from victims.data.base import ImageData
from victims.errors import InputError
from victims.observation import Observation
from victims.preprocessing import Preprocessing


class Facts(ImageData):
    """What is public of a data set: no image."""

    ids = []
    labels = torch.empty(0, dtype=torch.long)

    def __init__(self, shape: Sequence[int], classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        self.shape, self.classes = shape, tuple(map(str, range(classes)))
        self.mean, self.std = tuple(mean), tuple(std)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.shape
        return channels, height, width

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        raise InputError("a sealed attack has no images; work with the observation alone.")


def write(
    path: Path,
    track: Track,
    seed: int,
    data: ImageData,
    net: nn.Module,
    preprocessing: Preprocessing,
    observations: Sequence[Observation],
) -> None:
    """
    Args:
        seed: of the attack's starts.
        net: the model of the victim, before it becomes one.
    """
    tasks = [
        {"update": o.update, "labels": o.knowledge.labels, "statistics": o.knowledge.statistics} for o in observations
    ]
    content = {
        "track": track.name,
        "version": track.version,
        "seed": seed,
        "data": {"shape": data.image_shape, "classes": len(data.classes), "mean": data.mean, "std": data.std},
        "preprocessing": asdict(preprocessing),
        "weights": net.state_dict(),
        "tasks": tasks,
    }
    torch.save(content, path)


def load(path: Path) -> dict[str, Any]:
    """Tensors, numbers and texts of a file, without code.

    Raises:
        InputError: it is no such file.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError("it is not a regular file")
        return torch.load(path, map_location=best_device(), weights_only=True)
    except Exception as error:  # of the system, torch and pickle, which have no common base
        raise InputError(f"{path} is no file of a sealed run ({line(error)}); draw or attack again.") from None


def line(text: object) -> str:
    """What an attack or its file says, as a piece of a line that cannot look like several."""
    return "".join(filter(str.isprintable, " ".join(str(text).split())))[:200] or "nothing"


def rebuilt(content: dict[str, Any], config: Setting) -> list[Observation]:
    """The observations that a file holds.

    Args:
        config: of the attack.
    """
    data, client = Facts(**content["data"]), config.make_client()
    plain = replace(config, victim_weights="random", epochs_trained="0", between=0)  # the weights are in the file
    net, _ = plain.make_net(data)
    net.load_state_dict(content["weights"])
    victim = config.as_victim(data, net, Preprocessing(**content["preprocessing"])).to(best_device())
    return [
        Observation(
            task=f"task-{number}",
            victim=victim,
            update=task["update"],
            batch_size=config.batch,
            image_shape=data.image_shape,
            num_classes=len(data.classes),
            knowledge=declared(client, config.batch, task["labels"], task["statistics"]),
        )
        for number, task in enumerate(content["tasks"])
    ]
