"""The networks that metrics compare pictures by, as a run asks for them."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from benchmark.registry import find
from benchmark.scoring.face import Face
from benchmark.scoring.lpips import Lpips, find_all
from benchmark.scoring.metrics import METRICS
from victims.data.base import ImageData

Networks = Mapping[str, Lpips | Face]
"""By the parameter of a metric that takes it."""


def networks(lpips: str, data: str, weights_dir: Path) -> Networks:
    """Those that a run with these options needs, whether their weights are there or not.

    Raises:
        InputError: there is no such backbone or data set, or a file does not hold the weights that it should.
    """
    data_set: type[ImageData] = find("data", data.partition(":")[0])
    of_faces = {"face": Face.find(weights_dir)} if data_set.faces else {}
    return {**find_all(lpips, weights_dir), **of_faces}


def available(found: Networks) -> list[str]:
    return [name for name, network in found.items() if network.available]


def lpips_backbone(found: Networks) -> str:
    """The network of the metric `lpips`, or in one line why there is none, as a row has it."""
    squeeze = found.get("squeeze")
    return squeeze.backbone if isinstance(squeeze, Lpips) else "none: not asked for"


@cache
def available_to(lpips: str, data: str, weights_dir: Path) -> list[str]:
    """Those of a run with these options whose weights are there."""
    return available(networks(lpips, data, weights_dir))


def missing(found: Networks) -> dict[str, str]:
    """For every metric without its network: why, and the command that gets it."""
    return {
        metric: f"{found[need].reason}; to get it: {found[need].fix}"
        for metric, each in METRICS.items()
        for need in each.needs & found.keys()
        if not found[need].available
    }
