"""What all data sets share: splits by hash, and images that cannot be read."""

import hashlib

import pytest
import torch

from victims.data.base import ImageData, digest, some, split_of
from victims.errors import InputError, Notice

KEYS = [f"image-{k}" for k in range(2000)]


def test_the_digest_is_sha_256():
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180, example
    assert digest("\udcff")  # a file name that is no UTF-8


@pytest.mark.parametrize(
    ("among", "shares"),
    [
        (("train", "tune"), {"tune": 1 / 8, "train": 7 / 8}),
        (("tune", "test"), {"tune": 1 / 8, "test": 7 / 8}),
        (("train", "tune", "test"), {"tune": 1 / 8, "test": 1 / 4, "train": 5 / 8}),
        (("test",), {"test": 1}),
        (("tune",), {"tune": 1}),
    ],
)
def test_a_folder_is_split_in_these_shares(among, shares):
    splits = [split_of(key, among) for key in KEYS]
    assert set(splits) == set(shares)
    for split, share in shares.items():
        assert splits.count(split) / len(KEYS) == pytest.approx(share, abs=0.03)  # 3 standard deviations at most


def test_tune_does_not_depend_on_the_other_splits():
    tune = [key for key in KEYS if int.from_bytes(hashlib.sha256(key.encode()).digest(), "big") % 8 == 0]
    for among in (("train", "tune"), ("tune", "test"), ("train", "tune", "test")):
        assert [key for key in KEYS if split_of(key, among) == "tune"] == tune


class SomeBroken(ImageData):
    ids = ["a", "b", "c"]
    labels = torch.tensor([0, 1, 2])
    split = "test"

    def __init__(self, broken):
        self.broken = broken

    def __getitem__(self, index):
        if index in self.broken:
            raise InputError(f"{self.ids[index]}.png is no image")
        return torch.zeros(3, 8 + index, 8), index


def test_images_that_cannot_be_read_are_named_and_left_out():
    data = SomeBroken({1})
    with pytest.warns(Notice, match=r"left out: b\.png") as notices:
        assert data.readable([2, 1, 0]) == [2, 0]
    assert len(notices) == 1
    with pytest.warns(Notice, match=r"^left out: c\.png is no image The same is true of b, a\.$") as notices:
        assert SomeBroken({0, 1, 2}).readable([2, 1, 0]) == []
    assert len(notices) == 1
    assert some("abc") == "a, b, c"
    assert some("abcde") == "a, b, c and 2 more"
    assert data.key("a") == "a"


@pytest.mark.filterwarnings("error")
def test_the_shape_is_that_of_the_first_image_that_can_be_read():
    assert SomeBroken({2}).image_shape == (3, 8, 8)
    assert SomeBroken({0}).image_shape == (3, 9, 8)
    with pytest.raises(InputError, match="SomeBroken has no test image that can be read"):
        _ = SomeBroken({0, 1, 2}).image_shape
