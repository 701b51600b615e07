import pytest
import torch
from skimage.util import view_as_windows

from attacks.regularisers import squared_variation, total_variation


@pytest.fixture
def images():
    return torch.rand(2, 3, 3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def neighbours(images, run, axis):
    """Differences of neighbours along `axis` of one run, by sliding windows of two."""
    window = [1] * 4
    window[axis] = 2
    pairs = view_as_windows(images[run].numpy(), window).reshape(-1, 2)
    return pairs[:, 1] - pairs[:, 0]


def test_total_variation_is_the_sum_of_two_means(images):
    for run, value in enumerate(total_variation(images)):
        expected = abs(neighbours(images, run, 3)).mean() + abs(neighbours(images, run, 2)).mean()
        assert value.item() == pytest.approx(expected, rel=1e-12)


def test_squared_variation_is_one_sum_over_the_batch(images):
    for run, value in enumerate(squared_variation(images)):
        expected = (neighbours(images, run, 3) ** 2).sum() + (neighbours(images, run, 2) ** 2).sum()
        assert value.item() == pytest.approx(expected, rel=1e-12)


def test_both_are_zero_on_flat_images_and_only_there(images):
    for variation in (total_variation, squared_variation):
        assert variation(torch.ones_like(images)).tolist() == [0, 0]
        assert (variation(images) > 0).all()
