"""Plug and play: steps towards the images that a denoiser finds more natural."""

from operator import itemgetter
from typing import TYPE_CHECKING

from torch import Tensor

from attacks.engine.schedules import multistep
from attacks.engine.stage import Stage, Variables
from priors.base import Denoiser
from victims.victim import Victim

if TYPE_CHECKING:
    from attacks.engine.session import Session

ETA, ETA_D, SIGMAS = 0.03, 0.1, (0.1, 0.02)  # of the refinement: the best of four on the tune split of CIFAR-10


def plug_and_play(x: Tensor, victim: Victim, denoiser: Denoiser, sigma: float, eta: float) -> None:
    """x <- x + eta (D_sigma(x) - x), in place; x is normalized, (R, B, C, H, W), and D works on images in [0, 1].

    As (D_sigma(x) - x) / sigma^2 is the score of the images' distribution, smoothed by noise of sigma (Miyasawa 1961),
    this is a gradient step of length eta sigma^2 on its logarithm.
    """
    pixels = victim.denormalize(x)
    clean = denoiser(pixels.flatten(0, 1), sigma).view_as(x).clamp(0, 1)
    x.copy_(victim.normalize(pixels.lerp(clean, eta)))


def annealed(first: float, last: float, step: int, steps: int) -> float:
    """From `first` to `last` in equal ratios over the first 7/8 of the steps, then `last`."""
    return first * (last / first) ** min(1.0, step / (steps * 7 / 8))


def refinement(session: "Session", denoiser: Denoiser) -> Stage:
    """A last stage on the pixels, whatever was searched before: from the attack's result, with its labels.

    Adam on the matching cost alone, and a step of plug and play after each of its own. The last images are returned,
    whatever they cost: the cost rises where noise that fits the update is taken out. After IG it doubled, while the
    PSNR rose by 1.3 dB (ETA and so on as above, either denoiser). Of restarts, the one is chosen whose last images cost
    least.
    """
    victim, steps = session.paths.victim, session.attack.plan["refine"]

    def project(v: Variables, step: int) -> None:
        session.attack.box(v["x"])
        plug_and_play(v["x"], victim, denoiser, annealed(*SIGMAS, step, steps), ETA_D)

    return Stage(
        name="refine",
        variables={"x": session.best["images"]},
        fixed={"y": session.best["labels"]},
        labels=itemgetter("y"),
        lr=ETA,
        schedule=multistep,
        project=project,
        latest=True,
    )
