"""How close a reconstruction is to the private batch: per image, on [0, 1] images, after one matching."""

import piq
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from benchmark.scoring.lpips import MIN_SIDE, Lpips

HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "fsim": True, "lpips": False, "mse": False, "iip": True}
PSNR_CAP = 100.0  # dB; an exact match would be infinite and so would every mean that holds it
BLOCK = 2**20  # values of a gallery turned into floats at once: 4 MB, which stay in a core's cache


def mse(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error of each image: (B, C, H, W) twice -> (B,)."""
    return (reconstruction - truth).square().mean(dim=(1, 2, 3))


def psnr(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB (peak 1), capped: (B, C, H, W) twice -> (B,)."""
    return (-10 * mse(reconstruction, truth).log10()).clamp(max=PSNR_CAP)


def ssim(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image: (B, C, H, W) twice -> (B,), H and W at least 6.

    Wang et al. 2004: Gaussian 11x11 window, sigma 1.5, K1 = .01, K2 = .03, data range 1; the mean over the
    whole image, its border mirrored.
    """
    # float64: the variances are differences of near-equal numbers, which TF32 convolutions would spoil
    return structural_similarity_index_measure(
        reconstruction.double(),
        truth.double(),
        sigma=1.5,
        kernel_size=11,
        data_range=1.0,
        k1=0.01,
        k2=0.03,
        reduction="none",
    ).float()


def fsim(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """Feature similarity of each image, in color (FSIMc): (B, C, H, W) in [0, 1] twice -> (B,), H and W at least 2.

    Zhang et al. 2011: phase congruency (log-Gabor filters of 4 scales and 4 orientations, shortest wavelength 6
    pixels) and Scharr gradients of the luminance, I and Q of YIQ to the power .03; constants for [0, 255], to
    which the images are scaled; average-pooled by max(1, round(min(H, W) / 256)). One channel is luminance alone.
    """
    # float64: an image's score must not depend on the batch around it, and in float32 its last digit does
    return piq.fsim(
        reconstruction.double(), truth.double(), data_range=1.0, chromatic=truth.shape[1] != 1, reduction="none"
    ).float()


def identified(reconstruction: Tensor, gallery: Tensor, index: Tensor) -> Tensor:
    """Whether each image lies nearest to its own truth among all of a gallery, 1 or 0; the mean is IIP.

    Image identifiability precision with the mean squared error of [0, 1] pixels as distance. Yin et al. 2021
    compare features of a network; "IIP-pixel" of the breaching library has this distance, but looks only among
    images of the true label. A tie with the truth, such as a duplicate of it in the gallery, counts as identified.

    Args:
        reconstruction: (B, C, H, W) in [0, 1].
        gallery: (N, C, H, W) uint8.
        index: (B,) long, where in the gallery the truths are.
    """
    # Not by matrix products: they round the distances of equal images differently, which would break ties.
    direct = "donot_use_mm_for_euclid_dist"
    images = reconstruction.flatten(1)
    blocks = gallery.flatten(1).split(max(1, BLOCK // images.shape[1]))
    distances = torch.cat([torch.cdist(images, block / 255, compute_mode=direct) for block in blocks], dim=1)
    own = distances.gather(1, index[:, None]).squeeze(1)
    return (own <= distances.amin(1)).float()


def assign(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """The one-to-one assignment p of least total MSE: (B, C, H, W) twice -> (B,) long.

    `p[i]` is the index of the reconstruction that belongs to truth i: `reconstruction[p]` lines up with truth.
    """
    cost = torch.cdist(truth.flatten(1).double(), reconstruction.flatten(1).double()).square()
    _, p = linear_sum_assignment(cost.numpy(force=True))
    return torch.as_tensor(p, device=reconstruction.device)


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def score(reconstruction: Tensor, truth: Tensor, lpips: Lpips) -> tuple[Tensor, dict[str, list[float | None]]]:
    """Match a batch once, by MSE, and score each image: (B, C, H, W) twice -> aligned (B, C, H, W), scores.

    Works on the CPU in float32, so that the device of an attack does not move its scores. The reconstruction
    is clamped to [0, 1]; a pixel that is NaN counts as mid-gray (0.5), +-inf as 1 or 0, so that a diverged
    attack is scored too. `aligned[i]` and the i-th score of each metric (psnr, ssim, fsim, lpips, mse)
    belong to truth i. lpips is None where its weights are missing or the images are smaller than its network takes.

    Raises:
        ValueError: the shapes differ, or `truth` leaves [0, 1] (images that are still normalized).
    """
    if reconstruction.shape != truth.shape:
        raise ValueError(f"reconstruction {tuple(reconstruction.shape)} and truth {tuple(truth.shape)} differ")
    truth = truth.cpu().float()
    low, high = truth.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"truth must lie in [0, 1], got [{low:.3g}, {high:.3g}]")
    reconstruction = reconstruction.cpu().float().nan_to_num(nan=0.5).clamp(0, 1)
    aligned = reconstruction[assign(reconstruction, truth)]
    perceptual = lpips.available and min(truth.shape[-2:]) >= MIN_SIDE
    return aligned, {
        "psnr": psnr(aligned, truth).tolist(),
        "ssim": ssim(aligned, truth).tolist(),
        "fsim": fsim(aligned, truth).tolist(),
        "lpips": lpips(aligned, truth).tolist() if perceptual else [None] * len(truth),
        "mse": mse(aligned, truth).tolist(),
    }
