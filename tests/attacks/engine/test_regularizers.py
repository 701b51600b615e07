import pytest
import torch
from skimage.util import view_as_windows

from attacks.engine.regularizers import image_norm, squared_variation, statistics_distance, total_variation


@pytest.fixture
def images():
    return torch.rand(2, 3, 3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def neighbors(images, instance, axis):
    """Differences of neighbors along `axis` of one instance, by sliding windows of two."""
    window = [1] * 4
    window[axis] = 2
    pairs = view_as_windows(images[instance].numpy(), window).reshape(-1, 2)
    return pairs[:, 1] - pairs[:, 0]


def test_total_variation_is_the_sum_of_two_means(images):
    for instance, value in enumerate(total_variation(images)):
        expected = abs(neighbors(images, instance, 3)).mean() + abs(neighbors(images, instance, 2)).mean()
        assert value.item() == pytest.approx(expected, rel=1e-12)


def test_squared_variation_is_one_sum_over_the_batch(images):
    for instance, value in enumerate(squared_variation(images)):
        expected = (neighbors(images, instance, 3) ** 2).sum() + (neighbors(images, instance, 2) ** 2).sum()
        assert value.item() == pytest.approx(expected, rel=1e-12)


def test_both_are_zero_on_flat_images_and_only_there(images):
    for variation in (total_variation, squared_variation):
        assert variation(torch.ones_like(images)).tolist() == [0, 0]
        assert (variation(images) > 0).all()


def test_statistics_distance_is_a_sum_of_norms_with_a_weight_on_the_first_layer():
    generator = torch.Generator().manual_seed(1)
    dummy, target = ({n: torch.randn(2, 2, c, generator=generator) for n, c in (("a", 3), ("b", 5))} for _ in range(2))
    values = statistics_distance(dummy, target, first=10)
    for instance, value in enumerate(values):
        expected = 0.0
        for name, weight in (("a", 10), ("b", 1)):
            gap = (dummy[name] - target[name])[instance].numpy()
            expected += weight * sum(sum(entry**2 for entry in row) ** 0.5 for row in gap)
        assert value.item() == pytest.approx(expected, rel=1e-5)


def test_norms_have_a_zero_gradient_at_zero():
    images = torch.zeros(2, 3, 3, 5, 7, requires_grad=True)
    statistics = torch.zeros(2, 2, 4, requires_grad=True)
    (image_norm(images).sum() + statistics_distance({"a": statistics}, {"a": torch.zeros(2, 2, 4)}).sum()).backward()
    assert not images.grad.any()
    assert not statistics.grad.any()


def test_image_norm_is_the_norm_of_the_whole_batch(images):
    for instance, value in enumerate(image_norm(images)):
        assert value.item() == pytest.approx((images[instance].numpy() ** 2).sum() ** 0.5, rel=1e-12)
