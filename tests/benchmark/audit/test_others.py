"""The other images of a folder: their mean, and near-copies."""

import shutil

import numpy as np
import pytest
from PIL import Image

from benchmark.audit.looks import Looks
from benchmark.audit.others import others_of
from benchmark.scoring.lpips import Lpips
from tests.benchmark.audit.test_looks import folder
from victims.data.folder import Folder

MISSING = Lpips(None, "none: no weights")


def test_the_mean_of_the_others_leaves_the_image_out(tmp_path):
    data = folder(tmp_path, 6)
    found = others_of(Looks(data, MISSING), data.ids[:2])
    for place, image_id in enumerate(data.ids[:2]):
        others = np.mean([data[k][0].numpy() for k in range(6) if k != place], 0)
        psnr = -10 * np.log10(((others - data[place][0].numpy()) ** 2).mean())
        assert found[image_id].scores["psnr"] == pytest.approx(psnr, abs=1e-3)


def test_the_mean_of_the_others_leaves_copies_out(tmp_path):
    """With five copies the mean of the others would be the image itself."""
    data = folder(tmp_path, 6)
    alone = others_of(Looks(data, MISSING), data.ids[:1])
    for place in range(5):
        shutil.copy(tmp_path / "test" / "a" / "000.png", tmp_path / "test" / "a" / f"copy{place}.png")
    assert len(more := Folder(tmp_path, size=16)) == 11
    assert others_of(Looks(more, MISSING), data.ids[:1]) == alone


def test_a_copy_is_no_near_copy(tmp_path):
    folder(tmp_path, 3)
    shutil.copy(tmp_path / "test" / "a" / "000.png", tmp_path / "test" / "a" / "copy.png")
    found = others_of(Looks(data := Folder(tmp_path, size=16), MISSING), data.ids)
    assert len(found) == 4
    assert not any(other.near_copy for other in found.values())


def test_a_brighter_version_of_an_image_is_a_near_copy(tmp_path):
    folder(tmp_path, 3)
    first = Image.open(tmp_path / "test" / "a" / "000.png")
    first.point(lambda value: value * 0.85).save(tmp_path / "test" / "a" / "darker.png")
    data = Folder(tmp_path, size=16)
    found = others_of(Looks(data, MISSING), data.ids)
    assert [image for image, other in found.items() if other.near_copy] == [
        image for image in data.ids if "000" in image or "darker" in image
    ]
