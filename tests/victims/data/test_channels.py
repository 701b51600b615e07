"""Shades of gray are those of Pillow's mode L; gray as color is the same number three times."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from victims.data.base import ImageData
from victims.data.channels import in_channels
from victims.data.photos import Photos
from victims.errors import InputError


class Plain(ImageData):
    """Five images of random bytes."""

    name, split, classes = "plain", "test", ("a", "b")
    ids, labels = list("vwxyz"), torch.tensor([0, 1, 0, 1, 1])

    def __init__(self, channels):
        generator = torch.Generator().manual_seed(0)
        self.bytes = torch.randint(0, 256, (5, channels, 8, 8), generator=generator, dtype=torch.uint8)
        self.mean, self.std = (0.25,) * channels, (0.5,) * channels

    def __getitem__(self, index):
        return self.bytes[index] / 255, int(self.labels[index])


def test_gray_is_that_of_pillow():
    color = Plain(3)
    gray = in_channels(color, 1)
    assert gray.image_shape == (1, 8, 8)
    for index in range(5):
        image, label = gray[index]
        expected = to_tensor(Image.fromarray(color.bytes[index].permute(1, 2, 0).numpy()).convert("L"))
        assert (image - expected).abs().max() <= 1.01 / 255  # Pillow's weights have 16 bits
        assert (image - expected).abs().mean() < 0.02 / 255
        assert torch.equal((image * 255).round() / 255, image)
        assert label == color[index][1]
    assert (gray.ids, gray.name, gray.split, gray.classes) == (color.ids, "plain", "test", color.classes)
    assert (gray.mean, gray.std) == (pytest.approx((0.25,)), pytest.approx((0.5,)))


def test_the_mean_of_gray_is_that_of_its_images():
    """Gray is a weighted sum of colors, so its mean is that of their means; its deviation is at most that of theirs."""
    color = Plain(3)
    color.mean, color.std = (0.1, 0.5, 0.9), (0.2, 0.1, 0.4)
    gray = in_channels(color, 1)
    assert gray.mean == pytest.approx((0.299 * 0.1 + 0.587 * 0.5 + 0.114 * 0.9,))
    assert gray.std == pytest.approx((0.299 * 0.2 + 0.587 * 0.1 + 0.114 * 0.4,))


def test_what_is_held_out_is_held_out_in_gray_too():
    data = in_channels(Plain(3), 1)
    drawn, _ = data.augmented(200, torch.Generator().manual_seed(0), without={0, 3})
    kinds = [{data[index][0].numpy().tobytes(), data[index][0].flip(-1).numpy().tobytes()} for index in range(5)]
    seen = [any(image.numpy().tobytes() in kind for image in drawn) for kind in kinds]
    assert seen == [False, True, True, False, True]


def test_a_gray_picture_in_color_has_its_own_shades():
    gray = Plain(1)
    color = in_channels(gray, 3)
    assert color.image_shape == (3, 8, 8)
    assert (color.mean, color.std) == ((0.25,) * 3, (0.5,) * 3)
    again = in_channels(color, 1)
    assert all(torch.equal(again[index][0], gray[index][0]) for index in range(5))


def test_images_that_have_as_many_channels_stay_as_they_are():
    data = Plain(3)
    assert in_channels(data, 3) is data
    assert in_channels(data, None) is data


@pytest.mark.parametrize(("own", "asked", "said"), [(3, 2, "give 1 for shades of gray, or 3"), (4, 1, "4 channels")])
def test_other_numbers_are_refused(own, asked, said):
    with pytest.raises(InputError, match=said):
        in_channels(Plain(own), asked)


def test_draws_for_a_prior_are_those_of_the_data_set():
    color = Photos(split="train", size=16)
    images, labels = color.augmented(3, torch.Generator().manual_seed(1))
    gray, same = in_channels(color, 1).augmented(3, torch.Generator().manual_seed(1))
    assert torch.equal(labels, same)
    expected = np.tensordot([0.299, 0.587, 0.114], images.numpy(), ([0], [1]))[:, None]
    np.testing.assert_allclose(gray.numpy(), expected, atol=0.51 / 255)
