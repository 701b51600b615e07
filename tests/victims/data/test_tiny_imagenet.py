"""Tiny-ImageNet as it is published."""

import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import SHARED
from victims.data.tiny_imagenet import TinyImageNet
from victims.errors import InputError, Notice

WNIDS = [f"n{number:08d}" for number in range(3000, 5000, 10)]
ARCHIVE = SHARED / "data" / "tiny-imagenet-32.tar.xz"


def write(root, side=64):
    """200 classes; validation image k is of class 3 k and shows the number of its class, as training images do."""
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(reversed(WNIDS)) + "\n")
    annotations = []
    for k in range(60):
        place = 3 * k % 200
        Image.fromarray(np.full((side, side, 3), (place, k, 0), np.uint8)).save(
            root / "val" / "images" / f"val_{k}.png"
        )
        annotations.append(f"val_{k}.png\t{WNIDS[place]}\t0\t0\t63\t63")
    (root / "val" / "val_annotations.txt").write_text("\n".join(annotations) + "\n")
    for place in (0, 199):
        folder = root / "train" / WNIDS[place] / "images"
        folder.mkdir(parents=True)
        (folder.parent / f"{WNIDS[place]}_boxes.txt").write_text("")
        for k in range(3):
            Image.new("RGB", (side, side), (place, k, 0)).save(folder / f"{WNIDS[place]}_{k}.png")
    return root


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "tiny-imagenet-200")
    return tmp_path


@pytest.mark.filterwarnings("ignore::victims.errors.Notice")  # two classes have training images
def test_labels_are_places_in_the_sorted_list(root):
    for split in ("train", "tune", "test"):
        data = TinyImageNet(split=split, data_dir=root)
        images, labels = data.batch(range(len(data)))
        assert torch.equal(images[:, 0, 0, 0].mul(255).round().long(), labels)
        assert torch.equal(labels, data.labels)
    assert list(data.classes) == WNIDS
    assert set(TinyImageNet(split="train", data_dir=root).labels.tolist()) == {0, 199}


def test_tune_and_test_share_nothing_and_leave_nothing_out(root):
    tune, test = (TinyImageNet(split=split, data_dir=root).ids for split in ("tune", "test"))
    assert not set(tune) & set(test)
    assert sorted([*tune, *test]) == sorted(f"val_{k}" for k in range(60))


def test_the_smaller_version_is_used_if_the_original_is_missing_and_is_split_alike(root):
    write(root / "tiny-imagenet-32", side=32)
    original = TinyImageNet(data_dir=root).ids
    (root / "tiny-imagenet-200").rename(root / "elsewhere")
    copy = TinyImageNet(size=32, data_dir=root)
    assert copy.ids == [f"{name}-32px" for name in original]
    assert [copy.key(name) for name in copy.ids] == original


def test_images_without_a_label_and_files_that_are_gone_are_left_out(root):
    val = root / "tiny-imagenet-200" / "val"
    known = {*TinyImageNet(split="tune", data_dir=root).ids, *TinyImageNet(data_dir=root).ids}
    Image.new("RGB", (64, 64)).save(val / "images" / "val_999.png")
    (val / "images" / "val_7.png").unlink()
    with pytest.warns(Notice, match=r"no label in .*val_annotations\.txt for val_999\.png\."):
        tune, test = (TinyImageNet(split=split, data_dir=root).ids for split in ("tune", "test"))
    assert {*tune, *test} == known - {"val_7"}


@pytest.mark.parametrize(
    ("split", "spoil", "said"),
    [
        ("test", lambda root: root.rename(root.with_name("x")), r"no .*tiny-imagenet-200.wnids\.txt; unpack"),
        ("test", lambda root: (root / "val" / "val_annotations.txt").unlink(), r"no .*val_annotations\.txt; unpack"),
        ("test", lambda root: (root / "val" / "images").rename(root / "x"), r"no test images in .*val; put them"),
        ("test", lambda root: (root / "wnids.txt").write_text("n00003000\n\xff"), "lists 2 classes, not 200"),
        ("train", lambda root: (root / "train").rename(root / "x"), r"no train images in .*train; put them"),
    ],
)
def test_missing_or_broken_files_are_reported_in_one_line(root, split, spoil, said):
    spoil(root / "tiny-imagenet-200")
    with pytest.raises(InputError, match=said) as error:
        TinyImageNet(split=split, data_dir=root)
    assert "\n" not in str(error.value)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.is_file(), reason="needs ../shared/data/tiny-imagenet-32.tar.xz")
@pytest.mark.filterwarnings("ignore::victims.errors.Notice")  # only one class of the training images is unpacked
def test_the_real_files(tmp_path):
    wanted = ("wnids.txt", "val/", "train/n01443537/")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(
            tmp_path / "tiny-imagenet-32", (m for m in archive if m.name.startswith(wanted)), filter="data"
        )
    data = TinyImageNet(size=32, data_dir=tmp_path)
    assert 8500 < len(data) < 9000
    assert data.labels.bincount(minlength=200).min() > 30  # of 50 in each class
    images, _ = data.batch(range(0, len(data), 8))
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.tensor(data.mean), atol=0.01, rtol=0)
    train = TinyImageNet(split="train", size=32, data_dir=tmp_path)
    assert len(train) == 500
    assert data.classes[int(train.labels[0])] == "n01443537"
