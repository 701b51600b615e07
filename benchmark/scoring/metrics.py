"""How close a reconstruction is to the private batch: per image, on [0, 1] images, after one assignment.

A metric is one function with the decorator `@metric`. It needs no other line anywhere: rows carry its score and its
direction, and tables, the page and the pictures show what rows carry.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import piq
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from benchmark.scoring.face import SAME, Face
from benchmark.scoring.lpips import Lpips

PSNR_CAP = 100.0  # dB; an exact match would be infinite and so would every mean that holds it
SSIM_WINDOW = 11  # pixels
BLOCK = 2**20  # values of a gallery turned into floats at once: 4 MB, which stay in a core's cache

MetricFunction = Callable[..., Tensor | None]
"""(reconstruction, truth), aligned images (B, C, H, W) in [0, 1], and what it needs as keywords -> scores (B,).

None where it cannot score such images.
"""

F = TypeVar("F", bound=MetricFunction)


@dataclass(frozen=True)
class Metric:
    """A score of an image, and what others must know about it.

    Attributes:
        function: computes it.
        higher_is_better: the direction in which a reconstruction is closer to the truth.
        range: the least and the greatest value; intervals on boards keep to it.
        failure: what an attack without any result scores, no better than a picture that has nothing of the truth.
    """

    function: MetricFunction
    higher_is_better: bool
    range: tuple[float, float]
    failure: float

    @property
    def needs(self) -> frozenset[str]:
        """The function's keyword-only parameters: what it is given besides the two images."""
        parameters = inspect.signature(self.function).parameters.values()
        return frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

    @property
    def users_own(self) -> bool:
        """Whether it is not one of this file."""
        return self.function.__module__ != __name__


METRICS: dict[str, Metric] = {}
"""Every metric by its name in rows, which is the name of its function."""


def metric(*, higher_is_better: bool, range: tuple[float, float], failure: float) -> Callable[[F], F]:
    """Decorator of a function that is a metric; see `Metric`."""

    def register(function: F) -> F:
        METRICS[function.__name__] = Metric(function, higher_is_better, range, failure)
        return function

    return register


class Images(Protocol):
    """Images (N, C, H, W) of bytes, such as a tensor of them."""

    def split(self, count: int, /) -> Iterable[Tensor]:
        """Blocks of `count` images."""


@dataclass(frozen=True)
class Gallery:
    """The images among which a reconstruction should find its truth.

    Attributes:
        images: nothing is lost in bytes, as images are whole multiples of 1/255.
        index: (B,) long, where the truths are among them.
    """

    images: Images
    index: Tensor


@metric(higher_is_better=True, range=(0, PSNR_CAP), failure=0)
def psnr(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB (peak 1), capped at 100.

    (B, C, H, W) twice -> (B,). A failure has 0 dB, the least value: every pixel is as wrong as it can be.
    """
    return (-10 * mse(reconstruction, truth).log10()).clamp(max=PSNR_CAP)


@metric(higher_is_better=True, range=(-1, 1), failure=0)
def ssim(reconstruction: Tensor, truth: Tensor) -> Tensor | None:
    """Structural similarity (SSIM), of the luminance, contrast and structure of windows.

    (B, C, H, W) twice -> (B,); None below 6 pixels, where the border cannot be mirrored. A failure has 0: no structure
    in common.

    Wang et al. 2004: Gaussian 11x11 window, sigma 1.5, K1 = .01, K2 = .03, data range 1; the mean over the
    whole image, its border mirrored.
    """
    if min(truth.shape[-2:]) <= SSIM_WINDOW // 2:
        return None
    # float64: the variances are differences of near-equal numbers, which TF32 convolutions would spoil
    similarity = structural_similarity_index_measure(
        reconstruction.double(),
        truth.double(),
        sigma=1.5,
        kernel_size=SSIM_WINDOW,
        data_range=1.0,
        k1=0.01,
        k2=0.03,
        reduction="none",
    )
    assert isinstance(similarity, Tensor)  # without the optional map
    return similarity.float()


@metric(higher_is_better=True, range=(-1, 1), failure=0)
def ssim_cropped(reconstruction: Tensor, truth: Tensor) -> Tensor | None:
    """SSIM of the windows that lie wholly inside the image, as the package piq computes it.

    (B, C, H, W) twice -> (B,); None below 11 pixels. Images are first average-pooled by max(1, round(min(H, W) / 256)).

    The code of CI-Net reports it (scikit-image's differs from 384 pixels on). That of GIAS and GIFD has the same
    windows, but pads with zeros; GIFD's takes normalized images. A failure has 0.
    """
    if min(truth.shape[-2:]) < SSIM_WINDOW:
        return None
    # float64 as in `ssim`
    return piq.ssim(reconstruction.double(), truth.double(), data_range=1.0, reduction="none").float()


@metric(higher_is_better=True, range=(0, 1), failure=0)
def fsim(reconstruction: Tensor, truth: Tensor) -> Tensor | None:
    """Feature similarity in color (FSIMc), of phase congruency and gradients.

    (B, C, H, W) in [0, 1] twice -> (B,), H and W at least 2; None where images are neither gray nor in three colors. A
    failure has 0, the least value.

    Zhang et al. 2011: phase congruency (log-Gabor filters of 4 scales and 4 orientations, shortest wavelength 6
    pixels) and Scharr gradients of the luminance, I and Q of YIQ to the power .03; constants for [0, 255], to
    which the images are scaled; average-pooled by max(1, round(min(H, W) / 256)). One channel is luminance alone.
    """
    if truth.shape[1] not in (1, 3):
        return None
    # float64: an image's score must not depend on the batch around it, and in float32 its last digit does
    return piq.fsim(
        reconstruction.double(), truth.double(), data_range=1.0, chromatic=truth.shape[1] != 1, reduction="none"
    ).float()


@metric(higher_is_better=False, range=(0, math.inf), failure=1)
def lpips(reconstruction: Tensor, truth: Tensor, *, squeeze: Lpips) -> Tensor | None:
    """Learned perceptual distance (LPIPS v0.1), of features of SqueezeNet.

    (B, C, H, W) twice -> (B,); None if the backbone's weights are missing or the images are too small for it. One
    channel counts as gray: it is repeated.

    Zhang et al. 2018. There is no greatest value; a failure has 1, more than noise or gray in place of a photograph
    (0.4 to 0.8).
    """
    return squeeze(reconstruction, truth) if squeeze.takes(truth) else None


@metric(higher_is_better=False, range=(0, math.inf), failure=1)
def lpips_alex(reconstruction: Tensor, truth: Tensor, *, alex: Lpips) -> Tensor | None:
    """LPIPS of features of AlexNet, as the code of GIAS and GIFD computes it; see `lpips`."""
    return alex(reconstruction, truth) if alex.takes(truth) else None


@metric(higher_is_better=False, range=(0, math.inf), failure=1)
def lpips_vgg(reconstruction: Tensor, truth: Tensor, *, vgg: Lpips) -> Tensor | None:
    """LPIPS of features of VGG-16, which CI-Net reports, and the code of GIFD beside AlexNet's; see `lpips`."""
    return vgg(reconstruction, truth) if vgg.takes(truth) else None


@metric(higher_is_better=True, range=(0, 1), failure=0)
def same_face(reconstruction: Tensor, truth: Tensor, *, face: Face) -> Tensor | None:
    """Whether the face is that of the same person to dlib's descriptor (within 0.6), 1 or 0.

    (B, C, H, W) of aligned faces twice -> (B,); None if the descriptor's weights are missing, or below 32 pixels. The
    mean is the share of people who are recognized. At 32 pixels strangers, a gray picture and noise count as the same
    person in 8 % of cases, and the mean of twelve faces in 17 %; at 64 pixels only noise does, in 3 %.
    """
    return (face(reconstruction, truth) < SAME).float() if face.takes(truth) else None


@metric(higher_is_better=False, range=(0, 1), failure=1)
def mse(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error of the pixels.

    (B, C, H, W) twice -> (B,). A failure has 1, the greatest value.
    """
    return (reconstruction - truth).square().mean(dim=(1, 2, 3))


@metric(higher_is_better=True, range=(0, 1), failure=0)
def iip(reconstruction: Tensor, truth: Tensor, *, gallery: Gallery) -> Tensor:
    """Whether no other image of the split is nearer to the reconstruction than the true one, 1 or 0.

    (B, C, H, W) -> (B,).

    The mean is the image identifiability precision, with the mean squared error of [0, 1] pixels as distance. Yin et
    al. 2021 compare features of a network; "IIP-pixel" of the breaching library has this distance, but looks only
    among images of the true label. A tie with the truth, such as a duplicate of it in the gallery, counts as
    identified. A failure identifies nothing: 0.
    """
    # Not by matrix products: they round the distances of equal images differently, which would break ties.
    direct = "donot_use_mm_for_euclid_dist"
    images = reconstruction.flatten(1)
    own, least, start = images.new_empty(len(images)), images.new_full((len(images),), math.inf), 0
    for block in gallery.images.split(max(1, BLOCK // images.shape[1])):  # a minimum of blocks takes no memory
        distances = torch.cdist(images, block.flatten(1) / 255, compute_mode=direct)
        least = torch.minimum(least, distances.amin(1))
        place = gallery.index - start
        here = (place >= 0) & (place < len(block))
        own[here] = distances[here, place[here]]
        start += len(block)
    return (own <= least).float()
