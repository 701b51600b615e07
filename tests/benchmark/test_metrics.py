"""Metrics against scikit-image and by hand; matching against brute force."""

from itertools import permutations

import numpy as np
import pytest
import skimage.data
import skimage.metrics
import torch
from torch import Tensor

from benchmark.lpips_backbone import Lpips
from benchmark.metrics import PSNR_CAP, assign, mse, psnr, score, ssim

NO_LPIPS = Lpips(None, "none: not under test")
CYCLE = torch.tensor([1, 2, 0])  # not its own inverse, so the wrong direction cannot pass


def random_images(count: int, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def photographs() -> Tensor:
    """(2, 3, 48, 48) crops of two photographs."""
    crops = [skimage.data.astronaut()[60:108, 200:248], skimage.data.chelsea()[100:148, 120:168]]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255


def flat(*levels: float) -> Tensor:
    """One image of a single level per argument."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone()


def noisy(images: Tensor) -> Tensor:
    """Each image with its own amount of noise."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(9))
    scale = torch.linspace(0.02, 0.3, len(images)).view(-1, 1, 1, 1)
    return (images + scale * noise).clamp(0, 1)


def pairs() -> list[tuple[Tensor, Tensor]]:
    photos = photographs()
    blurred = torch.nn.functional.avg_pool2d(photos, 5, stride=1, padding=2)
    return [
        (random_images(3, seed=1), random_images(3, seed=2)),
        (noisy(photos), photos),
        (blurred, photos),
    ]


PAIRS = pytest.mark.parametrize(("a", "b"), pairs(), ids=["random", "noisy", "blurred"])


@PAIRS
def test_mse_and_psnr_are_those_of_scikit_image(a, b):
    numpy_pairs = list(zip(a.double().numpy(), b.double().numpy(), strict=True))
    expected_mse = [skimage.metrics.mean_squared_error(x, y) for x, y in numpy_pairs]
    expected_psnr = [skimage.metrics.peak_signal_noise_ratio(y, x, data_range=1) for x, y in numpy_pairs]
    assert mse(a, b).tolist() == pytest.approx(expected_mse, rel=1e-5)
    assert psnr(a, b).tolist() == pytest.approx(expected_psnr, rel=1e-5)


@PAIRS
def test_ssim_is_that_of_scikit_image(a, b):
    # Both filter alike, but scikit-image leaves five pixels at each border out of its mean, while torchmetrics
    # mirrors the image and averages all of it. If mirrored first, scikit-image drops just the padding.
    def expected(x: np.ndarray, y: np.ndarray) -> float:
        x, y = (np.pad(image, ((0, 0), (5, 5), (5, 5)), mode="reflect") for image in (x, y))
        return skimage.metrics.structural_similarity(
            x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=0
        )

    values = [expected(x, y) for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True)]
    assert ssim(a, b).tolist() == pytest.approx(values, abs=1e-6)


def test_psnr_is_capped_and_only_then():
    truth = flat(0.5, 0.5, 0.5)
    close = flat(0.5, 0.5 + 1e-6, 0.5 + 1e-4)
    assert psnr(close, truth).tolist() == pytest.approx([PSNR_CAP, PSNR_CAP, 80.0], abs=0.01)


def test_each_image_has_its_own_scores():
    off = flat(0.1, 0.5)
    assert mse(off, flat(0, 0)).tolist() == pytest.approx([0.01, 0.25])
    assert psnr(off, flat(0, 0)).tolist() == pytest.approx([20.0, 6.0206])
    photos = photographs()
    first_exact = torch.stack([photos[0], 1 - photos[1]])
    exact, inverted = ssim(first_exact, photos).tolist()
    assert exact == pytest.approx(1)
    assert inverted < 0


def test_assignment_points_from_truth_to_reconstruction():
    truth = random_images(3)
    p = assign(truth[CYCLE], truth)
    assert p.dtype == torch.long
    assert torch.equal(truth[CYCLE][p], truth)
    assert p.tolist() == [2, 0, 1]  # truth 0 lies at place 2 of truth[1, 2, 0]


def test_assignment_uses_each_reconstruction_once():
    black, red, brown = torch.tensor([[0, 0, 0], [0.9, 0, 0], [0.3, 0.1, 0]]).view(3, 3, 1, 1).expand(3, 3, 8, 8)
    truth, reconstruction = torch.stack([black, brown]), torch.stack([brown, red])
    # Reconstruction 0 is nearest to both truths and exactly truth 1: a greedy choice reuses it, or gives it to
    # truth 1. The least total gives it to truth 0: squared distances .10 + .37 against .81 + 0. Without the
    # square it would be .32 + .61 against .90 + 0.
    assert assign(reconstruction, truth).tolist() == [0, 1]


def test_assignment_has_the_least_total_of_all():
    truth, reconstruction = random_images(5, side=4, seed=3), random_images(5, side=4, seed=4)
    best = min(permutations(range(5)), key=lambda q: mse(reconstruction[list(q)], truth).sum().item())
    assert assign(reconstruction, truth).tolist() == list(best)


def test_score_does_not_depend_on_the_order_of_the_reconstructions():
    truth = random_images(3)
    reconstruction = noisy(truth)
    aligned, scores = score(reconstruction, truth, NO_LPIPS)
    aligned_cycle, scores_cycle = score(reconstruction[CYCLE], truth, NO_LPIPS)
    assert torch.equal(aligned, reconstruction)
    assert torch.equal(aligned_cycle, reconstruction)
    assert scores_cycle == scores
    assert scores["mse"] == mse(reconstruction, truth).tolist()
    assert scores["psnr"] == psnr(reconstruction, truth).tolist()
    assert scores["ssim"] == ssim(reconstruction, truth).tolist()
    assert len(set(scores["mse"])) == 3


def test_the_matching_by_mse_serves_the_other_metrics_too():
    one, other = random_images(2) - 0.5
    truth = torch.stack([0.2 + 0.2 * one, 0.7 + 0.2 * other])
    reconstruction = torch.stack([0.2 + 0.2 * other, 0.7 + 0.2 * one])  # right brightness, the other's structure
    _, scores = score(reconstruction, truth, NO_LPIPS)
    assert scores["ssim"] == ssim(reconstruction, truth).tolist()
    assert sum(scores["ssim"]) < ssim(reconstruction.flip(0), truth).sum()  # a matching by SSIM would swap them


def test_score_clamps_the_reconstruction():
    aligned, scores = score(flat(1.7, -0.3), flat(1, 0), NO_LPIPS)
    assert torch.equal(aligned, flat(1, 0))
    assert scores["mse"] == [0, 0]
    assert scores["psnr"] == [PSNR_CAP, PSNR_CAP]


def test_a_diverged_reconstruction_is_scored():
    truth = flat(0.9, 0.2, 1.0, 0.0)
    diverged = flat(float("nan"), 0.2, float("inf"), -float("inf"))
    aligned, scores = score(diverged, truth, NO_LPIPS)
    assert torch.equal(aligned, flat(0.5, 0.2, 1.0, 0.0))
    assert scores["mse"] == pytest.approx([0.16, 0, 0, 0])
    assert np.isfinite(scores["ssim"]).all()


def test_score_takes_half_precision_and_tensors_that_require_gradients():
    truth = flat(0.25, 0.75)
    aligned, scores = score(truth.half().requires_grad_(), truth, NO_LPIPS)
    assert aligned.dtype == torch.float32
    assert not aligned.requires_grad
    assert scores["mse"] == [0, 0]


def test_score_without_lpips_says_none():
    _, scores = score(flat(0.1, 0.2), flat(0.1, 0.2), NO_LPIPS)
    assert list(scores) == ["psnr", "ssim", "lpips", "mse"]
    assert scores["lpips"] == [None, None]


@pytest.mark.parametrize("level", [-0.1, 1.1, float("nan")])
def test_a_truth_outside_the_unit_range_is_refused(level):
    with pytest.raises(ValueError, match=r"truth must lie in \[0, 1\]"):
        score(flat(0.5, 0.5), flat(0.5, level), NO_LPIPS)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="differ"):
        score(flat(0.5, 0.5)[:, :1], flat(0.5, 0.5), NO_LPIPS)
