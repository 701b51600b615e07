"""Whether a picture looks like one image more than like the others."""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.audit.looks import Looks
from benchmark.audit.verdicts import FEWEST, OTHERS
from benchmark.scoring.lpips import Lpips
from benchmark.scoring.picture import png
from tests.conftest import SHARED
from victims.data.folder import Folder

WEIGHTS, CIFAR = SHARED / "weights", SHARED / "data" / "cifar10"


class Shapes:
    """A distance that is blind to contrast, in place of LPIPS: one minus the correlation."""

    compared = 0

    def takes(self, images):
        return min(images.shape[-2:]) > 8

    def __call__(self, a, b):
        self.compared = len(b)
        a, b = (x.flatten(1) - x.mean((1, 2, 3))[:, None] for x in (a, b))
        return 1 - torch.cosine_similarity(a, b)


def folder(path, count, side=16):
    random = np.random.default_rng(0)
    (path / "test" / "a").mkdir(parents=True)
    for place in range(count):
        smooth = Image.fromarray(random.integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize((side, side))
        smooth.save(path / "test" / "a" / f"{place:03}.png")
    return Folder(path, size=side)


def test_a_picture_in_wrong_contrast_looks_like_its_truth(tmp_path):
    data = folder(tmp_path, FEWEST)
    looks = Looks(data, Shapes())
    pale = png(0.4 + 0.2 * looks.truth(data.ids[2]))
    assert [looks.nearest(image, pale) for image in data.ids] == [place == 2 for place in range(FEWEST)]


def test_copies_of_an_image_do_not_take_its_place(tmp_path):
    folder(tmp_path, FEWEST)
    (tmp_path / "test" / "a" / "copy.png").write_bytes((tmp_path / "test" / "a" / "001.png").read_bytes())
    data = Folder(tmp_path, size=16)
    looks = Looks(data, Shapes())
    noisy = (looks.truth(data.ids[1]) + 0.05 * torch.randn(3, 16, 16)).clamp(0, 1)
    assert looks.nearest(data.ids[1], png(noisy))


def test_a_large_folder_is_looked_at_in_part(tmp_path):
    data = folder(tmp_path, 2 * OTHERS + 1)
    looks = Looks(data, Shapes())
    assert looks.nearest(data.ids[1], png(looks.truth(data.ids[1])))
    assert 1 < looks.lpips.compared <= OTHERS + 1


def test_without_its_network_or_in_tiny_images_nothing_looks_alike(tmp_path):
    data = folder(tmp_path / "a", FEWEST)
    assert not Looks(data, Lpips(None, "none: no weights")).nearest(data.ids[0], png(data[0][0]))
    data = folder(tmp_path / "b", FEWEST, side=8)
    assert not Looks(data, Shapes()).nearest(data.ids[0], png(data[0][0]))


def test_to_be_nearest_of_few_images_says_nothing(tmp_path):
    data = folder(tmp_path, FEWEST - 1)
    assert not Looks(data, Shapes()).nearest(data.ids[0], png(data[0][0]))


@pytest.mark.shared
@pytest.mark.skipif(not (WEIGHTS.is_dir() and CIFAR.is_dir()), reason="needs ../shared/{weights,data/cifar10}")
def test_lpips_knows_a_pale_photograph(tmp_path):
    data = Folder(CIFAR, size=32)
    looks = Looks(data, Lpips.find(WEIGHTS))
    pale = png(0.25 + 0.5 * looks.truth(data.ids[0]))
    assert looks.nearest(data.ids[0], pale)
    assert not looks.nearest(data.ids[1], pale)
