"""KID and FID against their formulas, and their inputs."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.priors import quality
from benchmark.priors.quality import Features, distance, photographs, samples
from benchmark.scoring.lpips import Lpips
from priors import names, weights
from priors.dcgan import DCGAN
from tests.conftest import SHARED
from victims.data.photos import Photos
from victims.modules import build


def normal(count, seed, *, shift=0.0):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)) + shift


def squared_mmd(x, y):
    """Unbiased, with the kernel (x.y / d + 1)^3, sample by sample (Binkowski et al. 2018, equations 3 and 4)."""
    kernel = lambda a, b: (float(a @ b) / len(a) + 1) ** 3  # noqa: E731
    m, n = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    within_y = sum(kernel(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within_x + within_y - 2 * sum(kernel(a, b) for a in x for b in y) / (m * n)


# The distances.


def test_kid_is_the_squared_mmd_of_random_subsets(monkeypatch):
    monkeypatch.setattr(quality, "SUBSETS", 3)
    real, fake = normal(20, 0).double(), normal(14, 1, shift=0.5).double()
    generator, values = torch.Generator().manual_seed(0), []
    for _ in range(3):
        x, y = (f[torch.randperm(len(f), generator=generator)[:7]].numpy() for f in (real, fake))
        values.append(squared_mmd(x, y))
    measured = distance(real, fake)
    assert measured.kid == pytest.approx(np.mean(values), rel=1e-9)
    assert measured.kid_std == pytest.approx(np.std(values), rel=1e-9)


def test_the_mean_over_subsets_is_the_squared_mmd_of_the_whole_sets():
    real, fake = normal(60, 2), normal(60, 3, shift=0.5)
    measured = distance(real, fake)
    assert abs(measured.kid - squared_mmd(real.numpy(), fake.numpy())) < 4 * measured.kid_std / 10


def test_kid_of_one_distribution_is_about_zero_and_fid_is_biased_upwards():
    few, many = (distance(normal(n, 4), normal(n, 5)) for n in (40, 1000))
    assert abs(many.kid) < 3 * many.kid_std < 3 * few.kid_std
    assert 0 < many.fid < few.fid / 10


def with_moments(mean, covariance, count, seed):
    """Features whose sample mean and covariance are exactly these."""
    z = np.random.default_rng(seed).standard_normal((count, len(mean)))
    z = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T
    return torch.from_numpy(mean + z @ np.linalg.cholesky(covariance).T)


def test_fid_is_the_closed_form_for_gaussians():
    """Covariances that commute: |m1 - m2|^2 + sum (s1 - s2)^2 over their common axes (Dowson and Landau, 1982)."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    m1, m2, s1, s2 = *rng.standard_normal((2, 4)), *rng.uniform(0.5, 3, (2, 4))
    real, fake = (with_moments(m, axes * s**2 @ axes.T, n, n) for m, s, n in ((m1, s1, 50), (m2, s2, 80)))
    expected = ((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum()
    assert distance(real, fake).fid == pytest.approx(expected, rel=1e-6)


def test_distances_are_repeatable_and_do_not_change_the_global_generator():
    before = torch.get_rng_state()
    assert distance(normal(30, 6), normal(30, 7)) == distance(normal(30, 6), normal(30, 7))
    assert torch.equal(torch.get_rng_state(), before)


# Their inputs.


def test_features_are_the_mean_over_the_normalized_map():
    color, mean, std = torch.tensor([[0.2, 0.5, 0.9], [1.0, 0.0, 0.4]]), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    images = color[..., None, None].expand(2, 3, 48, 48)
    expected = (color - torch.tensor(mean)) / torch.tensor(std) / 5
    torch.testing.assert_close(Features(nn.Identity())(images), expected)


@pytest.mark.parametrize("side", [32, 200])
def test_the_net_sees_128_px(side):
    seen = []
    body = nn.Identity()
    body.register_forward_hook(lambda _, given, __: seen.append(given[0].shape))
    Features(body)(torch.rand(2, 3, side, side))
    assert seen == [(2, 3, 128, 128)]


class Recorder(DCGAN):
    """A conditional prior that records its classes, with values outside [0, 1]."""

    def __init__(self):
        super().__init__(nz=3, ngf=2, classes=3)
        self.asked = []

    def forward(self, state):
        self.asked += state["y"].tolist()
        return 3 * super().forward(state) - 1


def test_samples_take_the_classes_in_turn_and_stay_in_0_1(monkeypatch):
    monkeypatch.setattr(quality, "BATCH", 4)
    prior = build(Recorder, seed=0).eval().requires_grad_(False)
    images = torch.cat([*samples(prior, 10, seed=0)])
    assert images.shape == (10, 3, 32, 32)
    assert prior.asked == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert images.min() >= 0
    assert images.max() <= 1
    assert len(images.flatten(1).unique(dim=0)) == 10


def test_every_photograph_once():
    data = Photos(split="test")
    images = torch.cat([*photographs(data)])
    assert torch.equal(images, data.batch(range(len(data)))[0])


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "weights" / "lpips").is_dir(), reason="needs ../shared/weights/lpips")
def test_trained_is_nearer_than_untrained_and_real_nearer_than_trained(monkeypatch):
    monkeypatch.setattr(quality, "SIDE", 64)  # four times as fast
    net = Features(Lpips.find(SHARED / "weights").features)
    trained = weights.load(names.SHIPPED / "dcgan-photos32.safetensors")
    real, tune = (quality.features(net, photographs(Photos(split=s)), 96, s) for s in ("test", "tune"))
    priors = (trained, build(DCGAN, seed=0).eval())
    good, bad = (quality.features(net, samples(prior, 50, seed=0), 50, "prior") for prior in priors)
    distances = [distance(real, fake) for fake in (tune, good, bad)]
    assert net(torch.rand(1, 3, 32, 32)).shape == (1, 512)
    for measure in ("kid", "fid"):
        values = [getattr(d, measure) for d in distances]
        assert values == sorted(values)
