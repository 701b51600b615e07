"""What all data sets share: splits by hash, and images that cannot be read."""

import hashlib
import warnings

import pytest
import torch

from victims.contract import Broken
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


class Numbered(ImageData):
    """Image k has the color k / 10 and the label k; some cannot be read."""

    ids = [f"{k}.png" for k in range(10)]
    classes = ids
    labels = torch.arange(10)
    split = "train"

    def __init__(self, *broken):
        self.broken = broken

    def __getitem__(self, index):
        if index in self.broken:
            raise InputError(f"{self.ids[index]} is no image")
        return torch.full((3, 2, 2), index / 10), index


def drawn(data, without=(), count=40):
    images, labels = data.augmented(count, torch.Generator().manual_seed(5), without)
    assert torch.equal(images[:, 0, 0, 0], labels / 10)
    return labels.tolist()


def test_others_are_drawn_in_place_of_images_that_cannot_be_read():
    data, whole = Numbered(3, 4), Numbered()
    with pytest.warns(Notice, match=r"left out: 3\.png .* 4\.png") as notices:
        labels = drawn(data)
    assert len(notices) == 1
    assert not {3, 4} & {*labels}
    assert all(k == old for k, old in zip(labels, drawn(whole), strict=True) if old not in (3, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a Notice in every step of a training would be too many
        assert drawn(data) == labels
        among = drawn(data, without={0, 1})
    assert not {0, 1, 3, 4} & {*among}
    with pytest.warns(Notice):
        assert drawn(Numbered(3, 4), without={0, 1}) == among  # whatever was drawn before, as in a resumed training


def test_draws_of_images_that_can_all_be_read_are_pinned():
    generator = torch.Generator().manual_seed(5)
    assert drawn(Numbered()) == torch.randint(10, (40,), generator=generator).tolist()


@pytest.mark.parametrize(("broken", "without"), [(range(10), ()), ((0, 1), range(2, 10))])
def test_a_training_without_an_image_is_refused_in_one_line(broken, without):
    with pytest.warns(Notice), pytest.raises(InputError, match=r"\d\.png is no image"):
        drawn(Numbered(*broken), without)


def test_a_broken_item_is_no_image_that_cannot_be_read():
    data = Numbered()
    data.classes = data.ids[:2]  # fewer than the labels say
    with pytest.raises(Broken, match="of the 2 classes"):
        drawn(data)
