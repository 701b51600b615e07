"""The other images of a folder: their mean, and near-copies."""

import shutil

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.functional import to_tensor

from benchmark.audit.looks import Looks
from benchmark.audit.others import copies_aside, others_of
from benchmark.audit.verdicts import Shown
from benchmark.scoring.lpips import Lpips
from benchmark.scoring.picture import png
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
    (image,) = data.ids[:1]
    assert alone[image].copied is False
    assert others_of(Looks(more, MISSING), [image]) == {image: alone[image]._replace(copied=True)}


def test_a_copy_is_no_near_copy(tmp_path):
    folder(tmp_path, 3)
    shutil.copy(tmp_path / "test" / "a" / "000.png", tmp_path / "test" / "a" / "copy.png")
    found = others_of(Looks(data := Folder(tmp_path, size=16), MISSING), data.ids)
    assert len(found) == 4
    assert not any(other.near_copy for other in found.values())


def test_a_picture_that_is_nearer_to_a_copy_is_of_the_image_too(tmp_path):
    """The copy is one step brighter, 48 dB; a picture between it and something else is nearer to the copy."""
    folder(tmp_path, 3)
    first = Image.open(tmp_path / "test" / "a" / "000.png")
    copy = first.point(lambda value: min(255, value + 1))
    copy.save(tmp_path / "test" / "a" / "copy.png")
    data = Folder(tmp_path, size=16)
    image, other = data.ids[0], next(place for place, name in enumerate(data.ids) if "002" in name)
    pictures = {"copy": to_tensor(copy), "other": data[other][0]}
    results = [Shown(name, {"iip": 0.0, "psnr": 9.0}, png(picture)) for name, picture in pictures.items()]
    found = {result.attack: result.row for result in copies_aside(Looks(data, MISSING), image, results)}
    assert found == {"copy": {"iip": 1.0, "psnr": 9.0}, "other": {"iip": 0.0, "psnr": 9.0}}


def test_a_brighter_version_of_an_image_is_a_near_copy(tmp_path):
    folder(tmp_path, 3)
    first = Image.open(tmp_path / "test" / "a" / "000.png")
    first.point(lambda value: value * 0.85).save(tmp_path / "test" / "a" / "darker.png")
    data = Folder(tmp_path, size=16)
    found = others_of(Looks(data, MISSING), data.ids)
    assert [image for image, other in found.items() if other.near_copy] == [
        image for image in data.ids if "000" in image or "darker" in image
    ]
