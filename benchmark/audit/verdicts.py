"""The verdicts of an audit: a scale, each step of it by metric and threshold, and the worst of an image."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import log10
from typing import Any, Literal, NamedTuple

EXACT, RECOGNISABLE, PARTLY, NOT_REBUILT = "exact", "recognisable", "partly", "not rebuilt"
NOT_JUDGED = "not judged"

FailOn = Literal["never", "exact", "recognisable", "partly"]
"""The verdict from which on an image fails the gate."""

STEP = 20 * log10(255)  # dB: the root mean square error is one step of 8-bit pixels
CLEAR_DB, SOME_DB = 3.0, 1.0  # PSNR above the best control
LIKE = 0.5  # SSIM
SOME_SSIM, SOME_LPIPS = 0.1, 0.1  # better than the best control


class Level(NamedTuple):
    """What a verdict says, and where its threshold comes from."""

    rule: str
    source: str


SCALE: Mapping[str, Level] = {
    EXACT: Level(
        f"as recognisable, and PSNR {STEP:.1f} dB or more",
        "the rounding of pictures: the root mean square error is at most one step of 8-bit pixels, 1/255",
    ),
    RECOGNISABLE: Level(
        f"nearer by squared error to this image than to every other one of the folder (IIP), SSIM {LIKE} or more, and "
        f"PSNR at least {CLEAR_DB:g} dB above the best control",
        f"IIP after Yin et al. (GradInversion, CVPR 2021); {CLEAR_DB:g} dB: half of the control's squared error; SSIM "
        f"{LIKE}: a convention of this suite",
    ),
    PARTLY: Level(
        f"nearer to this image than to every other one and PSNR at least {SOME_DB:g} dB above the best control; or "
        f"SSIM at least {SOME_SSIM} above it and a higher PSNR; or LPIPS, where its weights are there, at least "
        f"{SOME_LPIPS} below it and below that to other images of the folder",
        "conventions of this suite: more of the image than the controls have; LPIPS (Zhang et al., CVPR 2018) sees "
        "shapes in wrong colors or contrast, which squared errors do not",
    ),
    NOT_REBUILT: Level(
        "none of these, within the steps and the time that stand beside it", "a lower bound, which is not “safe”"
    ),
    NOT_JUDGED: Level(
        "the image is of almost one color (standard deviation below 2/255 in every channel), which any flat picture "
        "matches; or every attack on it diverged",
        "see docs/metrics.md",
    ),
}
"""From the worst on; the last is no step of the scale."""

ORDER = tuple(SCALE)


@dataclass(frozen=True)
class Shown:
    """The result of one attack for one image: the row, and the picture (PNG) that the attack chose by its own cost."""

    attack: str
    row: Mapping[str, Any]
    picture: bytes

    @property
    def is_control(self) -> bool:
        return self.row["control"] != "none"


class Control(NamedTuple):
    """The best scores of an image's controls, which were made without its update; PSNR in dB, LPIPS where it is."""

    psnr: float
    ssim: float
    lpips: float | None


class Found(NamedTuple):
    """The worst verdict on an image, the result that it rests on, and the controls."""

    verdict: str
    best: Shown
    control: Control


def verdict(row: Mapping[str, Any], control: Control, looks_like_it: Callable[[], bool]) -> str:
    """What one reconstruction shows of an image.

    Args:
        row: the scores of the reconstruction (`psnr` in dB, `ssim`, `lpips`, `iip`).
        looks_like_it: whether LPIPS finds the reconstruction nearer to the image than to others.
    """
    psnr, ssim = row["psnr"] - control.psnr, row["ssim"] - control.ssim
    if row["iip"] == 1 and row["ssim"] >= LIKE and psnr >= CLEAR_DB:
        return EXACT if row["psnr"] >= STEP else RECOGNISABLE
    if (row["iip"] == 1 and psnr >= SOME_DB) or (ssim >= SOME_SSIM and psnr > 0):
        return PARTLY
    lpips, without = row.get("lpips"), control.lpips
    if lpips is not None and without is not None and without - lpips >= SOME_LPIPS and looks_like_it():
        return PARTLY
    return NOT_REBUILT


def worst(results: Sequence[Shown], idle: Mapping[str, Any], looks_like_it: Callable[[bytes], bool]) -> Found:
    """The worst verdict over all attacks on an image under one defense, and the result of highest PSNR with it.

    Args:
        results: of the attacks, and of the same attacks on the update of other images.
        idle: scores of the mean of the other images.
        looks_like_it: whether LPIPS finds a picture (PNG) nearer to the image than to others.
    """
    attacks = [r for r in results if not r.is_control]
    best = max(attacks, key=lambda r: r.row["psnr"])
    without = [idle, *(r.row for r in results if r.is_control)]
    psnr, ssim = (max(control[metric] for control in without) for metric in ("psnr", "ssim"))
    lpips = min((one for row in without if (one := row.get("lpips")) is not None), default=None)
    control = Control(psnr, ssim, lpips)
    if best.row["degenerate"] or all(r.row["status"] == "diverged" for r in attacks):
        return Found(NOT_JUDGED, best, control)
    judged = [Found(verdict(r.row, control, partial(looks_like_it, r.picture)), r, control) for r in attacks]
    return min(judged, key=lambda found: (ORDER.index(found.verdict), -found.best.row["psnr"]))


def fails(found: str, fail_on: str) -> bool:
    """Whether an image with this verdict fails the gate; one that was not judged does not.

    Args:
        fail_on: see `FailOn`.
    """
    return fail_on != "never" and ORDER.index(found) <= ORDER.index(fail_on)
