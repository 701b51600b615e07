"""CIFAR-10 in folders: on files the tests make, and on real images where they are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import SHARED
from victims.data.cifar10 import CIFAR10
from victims.errors import InputError


def write(root: Path, split: str, count: int, suffix: str = "png") -> None:
    for k, name in enumerate(CIFAR10.classes):
        folder = root / "cifar10" / split / name
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = np.full((32, 32, 3), (k, i, 7), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:05d}.{suffix}")


@pytest.fixture
def root(tmp_path):
    write(tmp_path, "train", 16)
    write(tmp_path, "test", 2)
    return tmp_path


def test_images_labels_and_ids_belong_together(root):
    data = CIFAR10(split="test", data_dir=root)
    assert len(data) == 20
    for index in (0, 7, 19):
        image, label = data[index]
        assert image.shape == (3, 32, 32)
        assert (image[0] * 255 == label).all()
        assert data.ids[index] == f"{CIFAR10.classes[label]}-test-{int(image[1, 0, 0] * 255):05d}"
        assert data.labels[index] == label
    assert len(set(data.ids)) == len(data)


def test_train_and_tune_share_no_file_and_leave_none_out(root):
    train, tune = (set(CIFAR10(split=split, data_dir=root).ids) for split in ("train", "tune"))
    assert len(train) == 140
    assert len(tune) == 20
    assert not train & tune


def test_other_sizes_are_resampled_and_jpeg_is_read(root, tmp_path):
    assert CIFAR10(split="test", size=64, data_dir=root)[3][0].shape == (3, 64, 64)
    write(tmp_path / "jpeg", "train", 8, "jpg")
    assert len(CIFAR10(split="train", data_dir=tmp_path / "jpeg")) == 70


def test_what_is_missing_or_broken_is_one_line(root):
    for options, match in (
        ({"data_dir": root / "nowhere"}, "--data-dir"),
        ({"split": "val", "data_dir": root}, "train, tune, test"),
        ({"size": 4, "data_dir": root}, "8 or more"),
    ):
        with pytest.raises(InputError, match=match) as refusal:
            CIFAR10(**options)
        assert "\n" not in str(refusal.value)
    (root / "cifar10" / "test" / "airplane" / "00000.png").write_text("no image")
    with pytest.raises(InputError, match=r"00000\.png"):
        CIFAR10(split="test", data_dir=root)[0]


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "data" / "cifar10").is_dir(), reason="needs ../shared/data/cifar10")
def test_real_images_have_the_published_mean_and_deviation():
    data = CIFAR10(split="test", data_dir=SHARED / "data")
    assert len(data) == 800
    images, labels = data.batch(range(len(data)))
    assert torch.equal(labels, data.labels)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.tensor(data.mean), atol=0.02, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3)), torch.tensor(data.std), atol=0.02, rtol=0)
