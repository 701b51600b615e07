"""Metrics against scikit-image, NumPy and by hand; assignment and identification against brute force."""

from itertools import permutations
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import skimage.data
import skimage.metrics
import torch
from scipy.ndimage import correlate
from torch import Tensor

from benchmark.scoring import metrics
from benchmark.scoring.lpips import BACKBONES, Lpips
from benchmark.scoring.metrics import METRICS, PSNR_CAP, Gallery, fsim, iip, metric, mse, psnr, ssim, ssim_cropped
from benchmark.scoring.score import assign, degenerate, of_failure, score

NO_LPIPS = Lpips(None, "none: not under test")


class Backbone(Lpips):
    """In place of one that needs weights."""

    available = True

    def __init__(self):
        super().__init__(None, "stand-in")

    def takes(self, images):
        return True

    def __call__(self, a, b):
        return (a - b).abs().mean((1, 2, 3))


CYCLE = torch.tensor([1, 2, 0])  # not its own inverse, so the wrong direction cannot pass


@pytest.mark.parametrize("side", [4, 5, 6, 12])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_channels_and_size_are_scored_or_left_out(channels, side):
    images, truth = torch.rand(2, 2, channels, side, side, generator=torch.Generator().manual_seed(0))
    found = {n: m.function(images, truth) for n, m in METRICS.items() if not m.needs and n != "own"}
    missing = {name for name, values in found.items() if values is None}
    assert missing == {
        *(["fsim"] if channels in (2, 4) else []),
        *(["ssim"] if side < 6 else []),
        *(["ssim_cropped"] if side < 11 else []),
    }
    assert all(values.shape == (2,) and values.isfinite().all() for values in found.values() if values is not None)
    backbone = Lpips(SimpleNamespace(backbone=SimpleNamespace(min_side=5)), "stand-in")
    assert backbone.takes(truth) == (channels in (1, 3) and side >= 5)


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


def similarity_in_windows(x: np.ndarray, y: np.ndarray) -> float:
    """SSIM of two (C, H, W) images in [0, 1] from equation 13 of Wang et al. 2004, every window by itself."""
    bell = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
    weights = np.outer(bell, bell) / bell.sum() ** 2
    values = []
    for channel in zip(x, y, strict=True):
        for a, b in zip(*map(windows, channel), strict=True):
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            similar = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
            values.append(similar / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2)))
    return np.mean(values)


def windows(image: np.ndarray) -> np.ndarray:
    """Every 11x11 window of an image (H, W) that lies wholly inside."""
    return np.lib.stride_tricks.sliding_window_view(image, (11, 11)).reshape(-1, 11, 11)


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


@PAIRS
@pytest.mark.parametrize("channels", [1, 3])
def test_cropped_ssim_is_that_of_the_paper_in_whole_windows(a, b, channels):
    a, b = a[:, :channels], b[:, :channels]
    expected = [similarity_in_windows(x, y) for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True)]
    assert ssim_cropped(a, b).tolist() == pytest.approx(expected, abs=1e-6)


def test_cropped_ssim_of_a_large_image_is_of_its_halves():
    a, b = (torch.nn.functional.interpolate(images, size=400) for images in (photographs(), noisy(photographs())))
    halves = [torch.nn.functional.avg_pool2d(images, 2) for images in (a, b)]
    assert ssim_cropped(a, b).tolist() == pytest.approx(ssim_cropped(*halves).tolist(), abs=1e-6)
    assert ssim_cropped(a, b)[0] != pytest.approx(similarity_in_windows(*(x[0].double().numpy() for x in (a, b))))


def test_cropped_ssim_needs_a_window():
    least, small = random_images(2, 11), random_images(2, 10)
    assert score(least, least)[1]["ssim_cropped"] == [1, 1]
    assert score(small, small)[1]["ssim_cropped"] == [None, None]


def phase_congruency(image: np.ndarray) -> np.ndarray:
    """Of a luminance image (H, W) of even sides on [0, 255]: Kovesi's, with the settings of Zhang et al.

    Two choices that the paper leaves open, and that move a score by less than 1e-4, are piq's: angles count from
    the vertical (at the Nyquist frequency that matters), and the median is the lower of two middle values.
    """
    down, across = np.meshgrid(*map(np.fft.fftfreq, image.shape), indexing="ij")
    radius, angle = np.hypot(down, across), np.arctan2(-across, down)
    low_pass = 1 / (1 + (radius / 0.45) ** 30)
    radius[0, 0] = 1
    scales = [np.exp(-(np.log(radius * 6 * 2**s) ** 2) / (2 * np.log(0.55) ** 2)) * low_pass for s in range(4)]
    for scale in scales:
        scale[0, 0] = 0
    energy = amplitude = 0
    for orientation in np.arange(4) * np.pi / 4:
        turned = np.angle(np.exp(1j * (angle - orientation)))
        filters = np.stack(scales) * np.exp(-(turned**2) / (2 * (np.pi / 4 / 1.2) ** 2))
        responses = np.fft.ifft2(np.fft.fft2(image) * filters)
        direction = responses.sum(0) / np.abs(responses.sum(0))
        along = responses * direction.conj()
        kernels = np.fft.ifft2(filters).real * np.sqrt(image.size)
        # The noise's power, from the median response of the finest scale: its amplitudes are Rayleigh distributed.
        median = np.sort(np.abs(responses[0]), axis=None)[(image.size - 1) // 2]
        power = median**2 / np.log(2) / (filters[0] ** 2).sum()
        squares, pairs = (kernels**2).sum(), (kernels.sum(0) ** 2 - (kernels**2).sum(0)).sum() / 2
        tau = np.sqrt(power * (squares + 2 * pairs))
        threshold = tau * (np.sqrt(np.pi / 2) + 2 * np.sqrt(2 - np.pi / 2)) / 1.7
        energy = energy + np.maximum((along.real - np.abs(along.imag)).sum(0) - threshold, 0)
        amplitude = amplitude + np.abs(responses).sum(0)
    return energy / amplitude


def feature_similarity(x: np.ndarray, y: np.ndarray) -> float:
    """FSIMc of two (3, H, W) images in [0, 1], or FSIM of two (1, H, W), from the paper's formulas."""
    yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    x, y = (255 * (np.tensordot(yiq, image, 1) if len(image) == 3 else image) for image in (x, y))
    scharr = np.outer([3, 10, 3], [-1, 0, 1]) / 16

    def gradient(image: np.ndarray) -> np.ndarray:
        return np.hypot(*(correlate(image, kernel, mode="constant") for kernel in (scharr, scharr.T)))

    def similar(a: np.ndarray, b: np.ndarray, constant: float) -> np.ndarray:
        return (2 * a * b + constant) / (a**2 + b**2 + constant)

    congruency = [phase_congruency(image[0]) for image in (x, y)]
    weight = np.maximum(*congruency)
    local = similar(*congruency, 0.85) * similar(gradient(x[0]), gradient(y[0]), 160)
    for a, b in zip(x[1:], y[1:], strict=True):
        local = local * np.abs(similar(a, b, 200)) ** 0.03
    return (local * weight).sum() / weight.sum()


@PAIRS
@pytest.mark.parametrize("channels", [1, 3])
def test_fsim_is_that_of_the_paper(a, b, channels):
    a, b = a[:, :channels], b[:, :channels]
    expected = [feature_similarity(x, y) for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True)]
    assert fsim(a, b).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("side", [8, 9, 32])
def test_fsim_falls_with_noise_from_one(side):
    photos = photographs()[..., :side, :side]
    noise = torch.randn(photos.shape, generator=torch.Generator().manual_seed(5))
    values = torch.stack([fsim((photos + scale * noise).clamp(0, 1), photos) for scale in (0, 0.05, 0.2, 0.8)])
    assert values[0].tolist() == pytest.approx([1, 1])
    assert (values.diff(dim=0) < 0).all()


def test_fsim_of_an_image_does_not_depend_on_its_batch():
    a, b = random_images(3, seed=1), random_images(3, seed=2)
    assert fsim(a, b).tolist() == [fsim(x[None], y[None]).item() for x, y in zip(a, b, strict=True)]


def test_fsim_of_flat_images_is_a_number():
    black, bright, gray = fsim(flat(0, 1, 0.5), flat(0, 0.3, 0.5)).tolist()
    assert black == gray == 1
    assert 0 < bright < 1


def identified(guesses: Tensor, gallery: Tensor, index: Tensor) -> list[float]:
    return iip(guesses, gallery[index] / 255, gallery=Gallery(gallery, index)).tolist()


def gallery_of(count: int, side: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(6)
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("block", [1, 48 * 7, 48 * 30, 2**20])  # an image has 48 values
def test_iip_is_that_of_a_plain_loop(block, monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK", block)
    gallery, index = gallery_of(30), torch.arange(29, -1, -1)
    guesses = torch.lerp(gallery[index] / 255, random_images(30, side=4), torch.linspace(0, 1, 30).view(-1, 1, 1, 1))
    expected = []
    for guess, own in zip(guesses, index.tolist(), strict=True):
        distances = [(guess - image / 255).square().mean().item() for image in gallery]
        expected.append(float(np.argmin(distances) == own))
    assert 10 < sum(expected) < 29
    assert identified(guesses, gallery, index) == expected


@pytest.mark.parametrize("block", [1, 3072 * 7, 2**20])
def test_a_duplicate_of_the_truth_is_a_tie_and_a_nearer_image_is_not(block, monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK", block)
    gallery = gallery_of(30, side=32)
    gallery[[0, 13, 29]] = gallery[5].clone()
    almost = gallery[5] / 255 + 0.01 * (random_images(1) - 0.5)
    for own in (0, 5, 13, 29):
        assert identified(almost, gallery, torch.tensor([own])) == [1]
    assert identified(almost, gallery, torch.tensor([6])) == [0]


def test_one_step_of_one_pixel_tells_images_apart():
    gallery = gallery_of(1).expand(2, -1, -1, -1).clone()
    gallery[1, 0, 0, 0] ^= 1
    assert identified(gallery / 255, gallery, torch.tensor([0, 1])) == [1, 1]
    assert identified(gallery / 255, gallery, torch.tensor([1, 0])) == [0, 0]


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
    aligned, scores = score(reconstruction, truth)
    aligned_cycle, scores_cycle = score(reconstruction[CYCLE], truth)
    assert torch.equal(aligned, reconstruction)
    assert torch.equal(aligned_cycle, reconstruction)
    assert scores_cycle == scores
    assert scores["mse"] == mse(reconstruction, truth).tolist()
    assert scores["psnr"] == psnr(reconstruction, truth).tolist()
    assert scores["ssim"] == ssim(reconstruction, truth).tolist()
    assert scores["fsim"] == fsim(reconstruction, truth).tolist()
    assert len(set(scores["mse"])) == 3


def test_the_assignment_by_mse_serves_the_other_metrics_too():
    one, other = random_images(2) - 0.5
    truth = torch.stack([0.2 + 0.2 * one, 0.7 + 0.2 * other])
    reconstruction = torch.stack([0.2 + 0.2 * other, 0.7 + 0.2 * one])  # right brightness, the other's structure
    _, scores = score(reconstruction, truth)
    assert scores["ssim"] == ssim(reconstruction, truth).tolist()
    assert sum(scores["ssim"]) < ssim(reconstruction.flip(0), truth).sum()  # a matching by SSIM would swap them


def test_score_clamps_the_reconstruction():
    aligned, scores = score(flat(1.7, -0.3), flat(1, 0))
    assert torch.equal(aligned, flat(1, 0))
    assert scores["mse"] == [0, 0]
    assert scores["psnr"] == [PSNR_CAP, PSNR_CAP]


def test_pixels_that_are_not_finite_are_scored():
    truth = flat(0.9, 0.2, 1.0, 0.0)
    diverged = flat(float("nan"), 0.2, float("inf"), -float("inf"))
    aligned, scores = score(diverged, truth)
    assert torch.equal(aligned, flat(0.5, 0.2, 1.0, 0.0))
    assert scores["mse"] == pytest.approx([0.16, 0, 0, 0])
    assert np.isfinite(scores["ssim"]).all()
    assert np.isfinite(scores["fsim"]).all()


def test_score_takes_half_precision_and_tensors_that_require_gradients():
    truth = flat(0.25, 0.75)
    aligned, scores = score(truth.half().requires_grad_(), truth)
    assert aligned.dtype == torch.float32
    assert not aligned.requires_grad
    assert scores["mse"] == [0, 0]


def test_a_metric_without_what_it_needs_is_left_out_and_one_that_cannot_score_has_none():
    images = flat(0.1, 0.2)
    assert list(score(images, images)[1]) == ["psnr", "ssim", "ssim_cropped", "fsim", "mse"]
    gallery = Gallery((images * 255).round().byte(), torch.arange(2))
    _, scores = score(images, images, squeeze=NO_LPIPS, gallery=gallery)
    assert list(scores) == ["psnr", "ssim", "ssim_cropped", "fsim", "lpips", "mse", "iip"]
    assert scores["lpips"] == [None, None]
    assert scores["iip"] == [1, 1]


@patch.dict(METRICS)
def test_a_function_becomes_a_metric_by_its_decorator():
    @metric(higher_is_better=False, range=(0, 1), failure=1)
    def worst_pixel(reconstruction, truth):
        return (reconstruction - truth).abs().amax((1, 2, 3))

    @metric(higher_is_better=True, range=(0, 2), failure=0)
    def shifted(reconstruction, truth, *, offset):
        return reconstruction.mean((1, 2, 3)) + offset

    _, scores = score(flat(0.5, 0.2), flat(0.5, 0.3), offset=1.0)
    assert scores["worst_pixel"] == pytest.approx([0, 0.1])
    assert scores["shifted"] == pytest.approx([1.5, 1.2])
    assert "shifted" not in score(flat(0.5), flat(0.5))[1]
    assert not METRICS["worst_pixel"].higher_is_better


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("truth", ["random", "black", "white"])
def test_every_metric_stays_in_its_range_and_points_in_its_direction(name, truth):
    """The exact image has the best value of the range or more than that of any other image."""
    truth = {"random": random_images(3), "black": torch.zeros(3, 3, 32, 32), "white": torch.ones(3, 3, 32, 32)}[truth]
    low, high = METRICS[name].range
    gallery = Gallery(torch.cat([(truth * 255).round().byte(), gallery_of(9, 32)]), torch.arange(3))
    given = {backbone: Backbone() for backbone in BACKBONES} | {"face": Backbone(), "gallery": gallery}
    found = [score(x, truth, **given)[1][name] for x in (truth, noisy(truth), random_images(3, seed=7), 1 - truth)]
    assert all(low - 1e-6 <= value <= high + 1e-6 for values in found for value in values)
    best = np.array(found[0]) if METRICS[name].higher_is_better else -np.array(found[0])
    for others in found[1:]:
        assert (best >= (np.array(others) if METRICS[name].higher_is_better else -np.array(others)) - 1e-6).all()


@pytest.mark.parametrize("name", METRICS)
def test_a_failure_is_in_the_range_and_no_better_than_the_mean_color(name):
    truth = random_images(3)
    gallery = Gallery(torch.cat([(truth * 255).round().byte(), gallery_of(9, 32)]), torch.arange(3))
    _, scores = score(torch.full_like(truth, 0.5), truth, gallery=gallery)
    scores.setdefault(name, [0.4] * 3)  # LPIPS without its weights
    failed = of_failure(scores)[name]
    low, high = METRICS[name].range
    assert failed == [METRICS[name].failure] * 3
    assert low <= failed[0] <= high
    pairs = zip(failed, scores[name], strict=True)
    assert all(ours <= its if METRICS[name].higher_is_better else ours >= its for ours, its in pairs)


def test_degenerate_images_are_flat_in_every_channel():
    """A channel that is half a and half b has the standard deviation |a - b| / 2, but for n / (n - 1)."""

    def halves(*differences):
        image = torch.full((len(differences), 32, 32), 0.25)
        image[:, :, :16] += torch.tensor(differences)[:, None, None]
        return image

    flat, nearly = halves(0, 0, 0), halves(3.9 / 255, 3.9 / 255, 0)
    one_channel_varies, picture = halves(0, 4.1 / 255, 0), random_images(1)[0]
    assert degenerate(torch.stack([flat, nearly, one_channel_varies, picture])).tolist() == [True, True, False, False]
    assert degenerate(flat[None, :1]).tolist() == [True]


def test_a_failure_has_no_score_where_there_is_none():
    assert of_failure({"lpips": [None, 0.3]}) == {"lpips": [None, 1]}


@pytest.mark.parametrize("level", [-0.1, 1.1, float("nan")])
def test_a_truth_outside_the_unit_range_is_refused(level):
    with pytest.raises(ValueError, match=r"truth must lie in \[0, 1\]"):
        score(flat(0.5, 0.5), flat(0.5, level))


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="differ"):
        score(flat(0.5, 0.5)[:, :1], flat(0.5, 0.5))
