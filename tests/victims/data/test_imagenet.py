"""ImageNet in folders: labels from all thousand wnids, the shorter side resampled, the center cut out."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import SHARED
from victims.data.base import split_of
from victims.data.imagenet import ImageNet
from victims.errors import InputError, Notice

PLACES = {"n01440764": 0, "n01443537": 1, "n03450230": 578, "n15075141": 999}


pytestmark = pytest.mark.filterwarnings("ignore::victims.errors.Notice")  # 996 classes have no images here


@pytest.fixture
def root(tmp_path):
    for wnid, place in PLACES.items():
        folder = tmp_path / "imagenet" / "val" / wnid
        folder.mkdir(parents=True)
        for i in range(8):
            Image.fromarray(np.full((20, 30, 3), (place % 256, i, 7), np.uint8)).save(folder / f"{wnid}_{i}.png")
    (tmp_path / "imagenet" / "val" / "n99999999").mkdir()  # no class of the thousand
    Image.new("RGB", (20, 20)).save(tmp_path / "imagenet" / "val" / "n99999999" / "x.png")
    return tmp_path


def test_a_label_is_the_place_among_all_thousand(root):
    data = ImageNet(split="test", size=16, data_dir=root)
    assert len(ImageNet.classes) == 1000
    assert list(ImageNet.classes) == sorted(ImageNet.classes)
    assert set(data.labels.tolist()) == set(PLACES.values())
    for index, name in enumerate(data.ids):
        image, label = data[index]
        assert label == PLACES[name.split("_")[0]] == data.labels[index]
        assert (image[0] * 255 == label % 256).all()


def test_tune_and_test_share_nothing_and_leave_nothing_out(root):
    tune, test = (ImageNet(split=split, size=16, data_dir=root) for split in ("tune", "test"))
    assert sorted([*tune.ids, *test.ids]) == sorted(f"{wnid}_{i}" for wnid in PLACES for i in range(8))
    assert tune.ids == [name for name in sorted([*tune.ids, *test.ids]) if split_of(name, ("tune", "test")) == "tune"]
    assert 0 < len(tune) < len(test)


def test_classes_without_images_are_counted(root):
    for file in (root / "imagenet" / "val" / "n01440764").iterdir():
        file.unlink()
    with pytest.warns(Notice, match=r"imagenet has no images in .*val of n01440764, .* and 994 more\."):
        ImageNet(size=16, data_dir=root)


@pytest.mark.parametrize("sides", [(40, 20), (20, 40), (33, 33)])
def test_the_shorter_side_is_resampled_and_the_center_cut_out(tmp_path, sides):
    width, height = sides
    ramp = np.stack(np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height)), -1)
    pixels = np.concatenate([ramp, np.zeros((height, width, 1))], -1).astype(np.uint8)
    folder = tmp_path / "imagenet" / "train" / "n01440764"
    folder.mkdir(parents=True)
    Image.fromarray(pixels).save(folder / "ramp.png")
    image, _ = ImageNet(split="train", size=10, data_dir=tmp_path)[0]
    assert image.shape == (3, 10, 10)
    kept = [10 / (10 * side / min(sides)) for side in sides]  # share of each side in the middle
    for channel, share in enumerate(kept):
        spread = image[channel].amax() - image[channel].amin()
        assert spread == pytest.approx(0.9 * share, abs=0.1)
        assert image[channel].mean() == pytest.approx(0.5, abs=0.03)


def test_missing_files_are_reported_in_one_line(root):
    for options, said in (({"split": "train"}, "train images"), ({"split": "val"}, "'val'"), ({"size": 4}, "4 pixels")):
        with pytest.raises(InputError, match=said) as error:
            ImageNet(data_dir=root, **options)
        assert "\n" not in str(error.value)


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "data" / "imagenet").is_dir(), reason="needs ../shared/data/imagenet")
def test_real_photographs():
    tune, data = (ImageNet(split=split, size=64, data_dir=SHARED / "data") for split in ("tune", "test"))
    assert len(tune) + len(data) == 180
    images, labels = data.batch(range(0, len(data), 40))
    assert images.shape[1:] == (3, 64, 64)
    assert images.std() > 0.1
    assert torch.equal(labels, data.labels[::40])
    tench = data if "n01440764_tench" in data.ids else tune
    assert tench[tench.ids.index("n01440764_tench")][1] == 0
