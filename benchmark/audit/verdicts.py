"""The verdicts of an audit: a scale, each step of it by metric and threshold, and the worst of an image."""

from collections.abc import Callable, Mapping, Sequence
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
SOME_SSIM, SOME_LPIPS = 0.1, 0.15  # better than the best control


class Level(NamedTuple):
    """What a verdict says, and where its threshold comes from."""

    rule: str
    source: str


FEWEST, OTHERS = 20, 100
"""Images of a folder that a picture is compared with by LPIPS, least and most: to be nearest of few says little."""

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
        f"SSIM at least {SOME_SSIM} above it and a higher PSNR; or, in folders of {FEWEST} images and more, LPIPS at "
        f"least {SOME_LPIPS} below it and below that to {OTHERS} others, and PSNR at least {SOME_DB:g} dB above that "
        "attack's control",
        "conventions of this suite: more of the image than the controls have; LPIPS (Zhang et al., CVPR 2018) sees "
        "shapes in wrong colors or contrast. By chance about 1 of 50 pictures that have nothing of the image gets this "
        "verdict in a folder of 20 images, 1 of 180 in one of 100",
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
    """The worst verdict on an image, the result that it rests on, the controls, and whether it rests on LPIPS alone."""

    verdict: str
    best: Shown
    control: Control
    by_looks: bool = False


def verdict(row: Mapping[str, Any], control: Control) -> str:
    """What squared errors and SSIM show of an image in one reconstruction.

    Args:
        row: the scores of the reconstruction (`psnr` in dB, `ssim`, `iip`).
    """
    psnr, ssim = row["psnr"] - control.psnr, row["ssim"] - control.ssim
    if row["iip"] == 1 and row["ssim"] >= LIKE and psnr >= CLEAR_DB:
        return EXACT if row["psnr"] >= STEP else RECOGNISABLE
    if (row["iip"] == 1 and psnr >= SOME_DB) or (ssim >= SOME_SSIM and psnr > 0):
        return PARTLY
    return NOT_REBUILT


def looks_closer(result: Shown, results: Sequence[Shown], control: Control) -> bool:
    """Whether LPIPS is far below the best control's, and the PSNR above that of the same attack's control."""
    lpips, without = result.row.get("lpips"), control.lpips
    if lpips is None or without is None or without - lpips < SOME_LPIPS:
        return False
    own = [other.row["psnr"] for other in results if other.is_control and other.attack == result.attack]
    return bool(own) and result.row["psnr"] - max(own) >= SOME_DB


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

    def judged(result: Shown) -> Found:
        by_scores = verdict(result.row, control)
        by_looks = by_scores == NOT_REBUILT and looks_closer(result, results, control) and looks_like_it(result.picture)
        return Found(PARTLY if by_looks else by_scores, result, control, by_looks)

    return min(map(judged, attacks), key=lambda found: (ORDER.index(found.verdict), -found.best.row["psnr"]))


def fails(found: str, fail_on: str) -> bool:
    """Whether an image with this verdict fails the gate; one that was not judged does not.

    Args:
        fail_on: see `FailOn`.
    """
    return fail_on != "never" and ORDER.index(found) <= ORDER.index(fail_on)
