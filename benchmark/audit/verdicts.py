"""The verdicts of an audit: a scale, each step of it by metric and threshold, and the worst of an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import Any, Literal, NamedTuple

EXACT, RECOGNISABLE, PARTLY, NOT_REBUILT = "exact", "recognisable", "partly", "not rebuilt"
NOT_JUDGED = "not judged"

FailOn = Literal["never", "exact", "recognisable", "partly"]
"""The verdict from which on an image fails the gate."""

STEP = 20 * log10(255)  # dB: the root mean square error is one step of 8-bit pixels
CLEAR_DB, SOME_DB = 3.0, 1.0  # PSNR above the best control
LIKE = 0.5  # SSIM
SOME_SSIM = 0.1  # above the best control


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
        f"nearer to this image than to every other one and PSNR at least {SOME_DB:g} dB above the best control, or "
        f"SSIM at least {SOME_SSIM} above it and a higher PSNR",
        "a convention of this suite: more than the controls, but nothing that one would recognize",
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


class Found(NamedTuple):
    """The worst verdict on an image, the result that it rests on, and the best scores of the controls."""

    verdict: str
    best: Shown
    control_psnr: float
    control_ssim: float


def verdict(row: Mapping[str, Any], control_psnr: float, control_ssim: float) -> str:
    """What one reconstruction shows of an image.

    Args:
        row: the scores of the reconstruction (`psnr` in dB, `ssim`, `iip`).
        control_psnr, control_ssim: the best of the controls for the same image, made without its update.
    """
    psnr, ssim = row["psnr"] - control_psnr, row["ssim"] - control_ssim
    if row["iip"] == 1 and row["ssim"] >= LIKE and psnr >= CLEAR_DB:
        return EXACT if row["psnr"] >= STEP else RECOGNISABLE
    if (row["iip"] == 1 and psnr >= SOME_DB) or (ssim >= SOME_SSIM and psnr > 0):
        return PARTLY
    return NOT_REBUILT


def worst(results: Sequence[Shown], idle: Mapping[str, Any]) -> Found:
    """The worst verdict over all attacks on an image under one defense, and the result of highest PSNR with it.

    Args:
        results: of the attacks, and of the same attacks on the update of other images.
        idle: scores of the mean of the other images.
    """
    attacks = [r for r in results if not r.is_control]
    best = max(attacks, key=lambda r: r.row["psnr"])
    without = [idle, *(r.row for r in results if r.is_control)]
    psnr, ssim = (max(control[metric] for control in without) for metric in ("psnr", "ssim"))
    if best.row["degenerate"] or all(r.row["status"] == "diverged" for r in attacks):
        return Found(NOT_JUDGED, best, psnr, ssim)
    judged = [Found(verdict(r.row, psnr, ssim), r, psnr, ssim) for r in attacks]
    return min(judged, key=lambda found: (ORDER.index(found.verdict), -found.best.row["psnr"]))


def fails(found: str, fail_on: str) -> bool:
    """Whether an image with this verdict fails the gate; one that was not judged does not.

    Args:
        fail_on: see `FailOn`.
    """
    return fail_on != "never" and ORDER.index(found) <= ORDER.index(fail_on)
